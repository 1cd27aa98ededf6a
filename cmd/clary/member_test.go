package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAMachineThatHasJoinedStartsWithoutTheTokenThatItUsedUp(t *testing.T) {
	f := memberFlags{data: t.TempDir(), tokenFile: filepath.Join(t.TempDir(), "join.token")}
	if _, err := f.secret(); err == nil || !strings.Contains(err.Error(), "--token-file") {
		t.Errorf("a machine that has not joined starts without a token: %v", err)
	}
	if err := os.WriteFile(f.tokenFile, []byte("a token\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if token, err := f.secret(); token != "a token" || err != nil {
		t.Errorf("%q, %v", token, err)
	}
	if err := os.Remove(f.tokenFile); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(f.data, memberFile), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if token, err := f.secret(); token != "" || err != nil {
		t.Errorf("a machine that has joined: %q, %v", token, err)
	}
}
