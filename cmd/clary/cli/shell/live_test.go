package shell

import (
	"strings"
	"testing"
)

func TestALiveLineIsDrawnOverOnATerminalAndWrittenOnceElsewhere(t *testing.T) {
	var out strings.Builder
	plain := Line{out: &out}
	plain.Draw("1%", "epoch 1")
	plain.Draw("2%", "epoch 1")
	plain.Draw("3%", "epoch 2")
	plain.End()
	if out.String() != "epoch 1\nepoch 2\n" {
		t.Errorf("%q", out.String())
	}
	out.Reset()
	drawn := Line{out: &out, terminal: true, width: func() int { return 8 }}
	drawn.Draw("1%", "x")
	drawn.Draw("████████ 2%", "x") // too wide: the line would wrap and could not be drawn over
	drawn.End()
	if out.String() != "\r\x1b[K1%\r\x1b[K██████…\n" {
		t.Errorf("%q", out.String())
	}
}
