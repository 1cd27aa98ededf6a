package sandbox

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Drop makes the calling thread a user without privileges, for ever: no capability, none
// to be gained by running a program, and only the system calls of ordinary programs. The
// caller has locked its thread and execs from it next: an exec keeps what its own thread
// has, so the others do not matter.
func Drop(user User) error {
	for capability := uintptr(0); capability <= unix.CAP_LAST_CAP; capability++ {
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, capability, 0, 0, 0); err != nil && err != unix.EINVAL {
			return fmt.Errorf("drop capability %d: %w", capability, err)
		}
	}
	groups := make([]uint32, len(user.Groups), len(user.Groups)+1)
	copy(groups, user.Groups)
	for _, call := range []struct {
		what               string
		number, a1, a2, a3 uintptr
	}{
		{"set the groups", unix.SYS_SETGROUPS, uintptr(len(groups)), pointer(groups), 0},
		{"set the group", unix.SYS_SETRESGID, uintptr(user.GID), uintptr(user.GID), uintptr(user.GID)},
		{"set the user", unix.SYS_SETRESUID, uintptr(user.UID), uintptr(user.UID), uintptr(user.UID)},
	} {
		// Not the library's calls, which change all threads: another may be in a state
		// that refuses, and only this one goes on.
		if _, _, errno := unix.RawSyscall(call.number, call.a1, call.a2, call.a3); errno != 0 {
			return fmt.Errorf("%s: %w", call.what, errno)
		}
	}
	runtime.KeepAlive(groups)
	none := [2]unix.CapUserData{}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	if err := unix.Capset(&header, &none[0]); err != nil {
		return fmt.Errorf("drop capabilities: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("refuse new privileges: %w", err)
	}
	return refuse()
}

func pointer(list []uint32) uintptr {
	if len(list) == 0 {
		return 0
	}
	return uintptr(unsafe.Pointer(&list[0]))
}

// refuse installs the filter of system calls. One that is refused answers EPERM; clone3,
// whose flags a filter cannot see, answers ENOSYS, at which C libraries fall back to clone.
func refuse() error {
	program := filter()
	arguments := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	_, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&arguments)))
	runtime.KeepAlive(program)
	if errno != 0 {
		return fmt.Errorf("filter system calls: %w", errno)
	}
	return nil
}

// The layout of struct seccomp_data (linux/seccomp.h).
const (
	offsetNumber = 0
	offsetArch   = 4
	offsetFlags  = 16 // low half of the first argument, on machines with the low byte first
)

// namespaces are clone's flags for new ones: in a user namespace a program has all
// privileges over what it makes, and so a larger part of the kernel to attack.
const namespaces = unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWPID |
	unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP

// filter is the program: BPF over seccomp_data.
func filter() []unix.SockFilter {
	load := func(offset uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
	}
	jump := func(test uint16, k uint32, then, otherwise uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | test | unix.BPF_K, K: k, Jt: then, Jf: otherwise}
	}
	answer := func(k uint32) unix.SockFilter { return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: k} }
	denied := answer(unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM))
	missing := answer(unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS))

	program := []unix.SockFilter{
		load(offsetArch), jump(unix.BPF_JEQ, auditArch, 1, 0), answer(unix.SECCOMP_RET_KILL_PROCESS),
		load(offsetNumber),
	}
	if foreignBit != 0 {
		program = append(program, jump(unix.BPF_JGE, foreignBit, 0, 1), missing)
	}
	for _, number := range append(refused[:len(refused):len(refused)], refusedHere...) {
		program = append(program, jump(unix.BPF_JEQ, uint32(number), 0, 1), denied)
	}
	return append(
		program,
		jump(unix.BPF_JEQ, unix.SYS_CLONE3, 0, 1), missing,
		jump(unix.BPF_JEQ, unix.SYS_CLONE, 0, 3), load(offsetFlags), jump(unix.BPF_JSET, namespaces, 0, 1), denied,
		answer(unix.SECCOMP_RET_ALLOW),
	)
}

// refused are the system calls that administer the machine, in the spirit of the default
// profile of container engines.
var refused = []int{
	unix.SYS_ACCT, unix.SYS_ADD_KEY, unix.SYS_BPF, unix.SYS_CHROOT, unix.SYS_CLOCK_ADJTIME, unix.SYS_CLOCK_SETTIME, unix.SYS_ADJTIMEX,
	unix.SYS_DELETE_MODULE, unix.SYS_FINIT_MODULE, unix.SYS_INIT_MODULE, unix.SYS_KEXEC_LOAD, unix.SYS_KEXEC_FILE_LOAD,
	unix.SYS_KEYCTL, unix.SYS_REQUEST_KEY, unix.SYS_LOOKUP_DCOOKIE, unix.SYS_NAME_TO_HANDLE_AT, unix.SYS_OPEN_BY_HANDLE_AT,
	unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_PIVOT_ROOT, unix.SYS_MOUNT_SETATTR, unix.SYS_MOVE_MOUNT, unix.SYS_OPEN_TREE,
	unix.SYS_FSOPEN, unix.SYS_FSCONFIG, unix.SYS_FSMOUNT, unix.SYS_FSPICK, unix.SYS_QUOTACTL, unix.SYS_QUOTACTL_FD,
	unix.SYS_PERF_EVENT_OPEN, unix.SYS_PERSONALITY, unix.SYS_REBOOT, unix.SYS_SETDOMAINNAME, unix.SYS_SETHOSTNAME,
	unix.SYS_SETNS, unix.SYS_UNSHARE, unix.SYS_SETTIMEOFDAY, unix.SYS_SWAPON, unix.SYS_SWAPOFF, unix.SYS_SYSLOG,
	unix.SYS_USERFAULTFD, unix.SYS_VHANGUP, unix.SYS_FANOTIFY_INIT,
	unix.SYS_IO_URING_SETUP, unix.SYS_IO_URING_ENTER, unix.SYS_IO_URING_REGISTER,
}
