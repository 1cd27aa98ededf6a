package shim

import (
	"bytes"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// stat is what /proc/PID/stat says of a process.
type stat struct {
	state   byte
	parent  int
	session int
	ticks   uint64 // when it started, in clock ticks since boot
}

// readStat reads it; false if there is no such process.
func readStat(pid int) (stat, bool) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return stat{}, false
	}
	return parseStat(text)
}

// parseStat reads "pid (name) state ppid pgrp session ... starttime ...". The name
// may itself hold spaces and parentheses.
func parseStat(text []byte) (stat, bool) {
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	if len(fields) < 20 {
		return stat{}, false
	}
	s := stat{state: fields[0][0]}
	s.parent, _ = strconv.Atoi(string(fields[1]))
	s.session, _ = strconv.Atoi(string(fields[3]))
	s.ticks, _ = strconv.ParseUint(string(fields[19]), 10, 64)
	return s, true
}

// Ticks returns when the process started, in clock ticks since boot; 0 if there is
// no such process, or only its unreaped remains.
func Ticks(pid int) uint64 {
	s, ok := readStat(pid)
	if !ok || s.state == 'Z' || s.state == 'X' {
		return 0
	}
	return s.ticks
}

// Alive reports whether the process that Start names still exists.
func (s Start) Alive() bool {
	return s.Pid > 0 && s.Boot == Boot() && Ticks(s.Pid) == s.Ticks && s.Ticks != 0
}

// KillSession kills what is left of the task's session, for a task without control
// group whose shim was killed. A number that has since been given to another
// session is recognized by its leader, which must then exist and be younger. It
// returns when none is left, or after patience.
func (s Start) KillSession(patience time.Duration) {
	if s.Pid <= 0 || s.Boot != Boot() {
		return
	}
	if leader, ok := readStat(s.Pid); ok && leader.ticks != s.Ticks {
		return
	}
	deadline := time.Now().Add(patience)
	for left := 1; left > 0 && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		left = 0
		each(func(pid int, of stat) {
			if of.session == s.Pid && of.state != 'Z' && of.state != 'X' {
				_ = syscall.Kill(pid, syscall.SIGKILL)
				left++
			}
		})
	}
}

// Session lists the processes of the task's session.
func (s Start) Session() []int {
	if !s.Alive() {
		return nil
	}
	var pids []int
	each(func(pid int, of stat) {
		if of.session == s.Pid {
			pids = append(pids, pid)
		}
	})
	return pids
}

// killChildren kills all direct children of this process. Their own children then
// become ours, so calling it until none is left ends every descendant, also those
// that went into another session or control group.
func killChildren() {
	if pids, ok := children(); ok {
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		return
	}
	self := os.Getpid()
	each(func(pid int, of stat) {
		if of.parent == self {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	})
}

// children asks the kernel for this process's children, one list for each of its threads;
// false where the kernel keeps no such lists. A list may miss some while others end.
func children() (pids []int, ok bool) {
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return nil, false
	}
	for _, thread := range threads {
		text, err := os.ReadFile("/proc/self/task/" + thread.Name() + "/children")
		if err != nil {
			continue // the thread has ended, or there are no lists
		}
		ok = true
		for word := range strings.FieldsSeq(string(text)) {
			if pid, err := strconv.Atoi(word); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids, ok
}

func each(visit func(pid int, of stat)) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return
	}
	for _, entry := range entries {
		if pid, err := strconv.Atoi(entry.Name()); err == nil {
			if of, ok := readStat(pid); ok {
				visit(pid, of)
			}
		}
	}
}
