package inventory

import "testing"

func TestThisMachineHasSomething(t *testing.T) {
	host, err := Read(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if host.MilliCPU < 1000 || host.Memory < 64<<20 || host.Disk <= 0 || host.Hostname == "" {
		t.Errorf("inventory %+v", host)
	}
	for _, label := range []string{"os", "arch", "kernel", "hostname"} {
		if host.Labels[label] == "" {
			t.Errorf("label %s is missing in %v", label, host.Labels)
		}
	}
	if _, err := Read("/no/such/folder"); err == nil {
		t.Error("a folder that does not exist has a size")
	}
}

func TestSystemFilesAreReadAsTheyAreWritten(t *testing.T) {
	if n, err := memTotal("MemFree: 1 kB\nMemTotal:       16384 kB\n"); err != nil || n != 16<<20 {
		t.Errorf("%d, %v", n, err)
	}
	if _, err := memTotal("rubbish"); err == nil {
		t.Error("rubbish has memory")
	}
	for text, want := range map[string]string{
		"ID=debian\nVERSION_ID=\"12\"\n": "debian-12", "ID=arch\n": "arch", "": "linux",
	} {
		if got := osName(text); got != want {
			t.Errorf("%q is %q, want %q", text, got, want)
		}
	}
}
