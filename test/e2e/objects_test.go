package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestObjectsComeBackAsTheyWere(t *testing.T) {
	m := start(t, 1, 0)
	big := make([]byte, 20<<20)
	_, _ = rand.Read(big)
	up, down := m.Path("up"), m.Path("down")
	if err := os.MkdirAll(filepath.Join(up, "below"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"big": big, "empty": nil, "below/odd name + ü.txt": []byte("hello\n")} {
		if err := os.WriteFile(filepath.Join(up, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	m.Clary("cp", "-r", up, "s3://clary/e2e/")
	m.Clary("cp", "-r", "s3://clary/e2e/", down)
	for _, name := range []string{"big", "empty", "below/odd name + ü.txt"} {
		sent, _ := os.ReadFile(filepath.Join(up, name))
		got, err := os.ReadFile(filepath.Join(down, name))
		if err != nil || sha256.Sum256(got) != sha256.Sum256(sent) {
			t.Errorf("%s: %d bytes came back of %d: %v", name, len(got), len(sent), err)
		}
	}
	if out := m.Clary("cp", "s3://clary/e2e/below/odd name + ü.txt", "-"); out != "hello\n" {
		t.Errorf("on standard output: %q", out)
	}
	if list := m.Clary("ls", "s3://clary/e2e/"); !strings.Contains(list, "s3://clary/e2e/big") || !strings.Contains(list, "below/") || strings.Contains(list, "odd") {
		t.Errorf("ls: %s", list)
	}
	if list := m.Clary("ls", "-r", "s3://clary/e2e/"); !strings.Contains(list, "odd name + ü.txt") {
		t.Errorf("ls -r: %s", list)
	}
	m.Clary("rm", "s3://clary/e2e/big")
	m.refuses(nil, []string{"cp", "s3://clary/e2e/big", "-"}, "s3://clary/e2e/big")
	m.Clary("rm", "-r", "s3://clary/e2e/")
	if list := m.Clary("ls", "-r", "s3://clary/e2e/"); strings.Contains(list, "s3://") {
		t.Errorf("after rm -r: %s", list)
	}
	m.refuses(nil, []string{"cp", "s3://no-such-bucket/x", "-"}, "no-such-bucket")
}

func TestProgramsThatSpeakS3ReachTheSameObjects(t *testing.T) {
	aws, err := exec.LookPath("aws")
	if err != nil {
		t.Skip("skipped: aws is not installed")
	}
	m := start(t, 1, 0)
	keys, err := m.Client().Credentials(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	ca := m.Path("ca.pem")
	if err := os.WriteFile(ca, []byte(keys.CAPEM), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(stdin string, args ...string) (string, error) {
		command := exec.Command(aws, append([]string{"--endpoint-url", keys.Endpoint, "--ca-bundle", ca, "--region", keys.Region}, args...)...)
		command.Env = append(os.Environ(), "AWS_ACCESS_KEY_ID="+keys.AccessKey, "AWS_SECRET_ACCESS_KEY="+keys.SecretKey, "AWS_EC2_METADATA_DISABLED=true")
		command.Stdin = strings.NewReader(stdin)
		var out bytes.Buffer
		command.Stdout, command.Stderr = &out, &out
		err := command.Run()
		return out.String(), err
	}
	if out, err := run("from aws\n", "s3", "cp", "-", "s3://clary/e2e/aws.txt"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if out := m.Clary("cp", "s3://clary/e2e/aws.txt", "-"); out != "from aws\n" {
		t.Errorf("clary reads %q", out)
	}
	big := m.Path("big")
	data := bytes.Repeat([]byte("0123456789abcdef"), 20<<16)
	if err := os.WriteFile(big, data, 0o600); err != nil {
		t.Fatal(err)
	}
	m.Clary("cp", big, "s3://clary/e2e/big")
	if out, err := run("", "s3", "cp", "s3://clary/e2e/big", big+".aws"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if got, _ := os.ReadFile(big + ".aws"); !bytes.Equal(got, data) {
		t.Errorf("aws reads %d bytes of %d", len(got), len(data))
	}
	keys.SecretKey = strings.Repeat("x", len(keys.SecretKey))
	if out, err := run("", "s3", "ls", "s3://clary/"); err == nil || !strings.Contains(out, "SignatureDoesNotMatch") {
		t.Errorf("a wrong key: %v: %s", err, out)
	}
}
