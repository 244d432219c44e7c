"""A seccomp filter as BPF bytes, assembled here: the system calls that no program in the box has any business with.

The filter denies by name and lets the rest pass: what is denied are the interfaces through which a process reaches
other processes, other namespaces, the kernel's less trodden parts, or the network. A denied call fails with EPERM (with
ENOSYS
where a C library then falls back to a call that can be checked). A call by another instruction set than the filter's
own (32-bit code on x86_64) kills the process, since its numbers mean other calls.

Sources: seccomp(2), linux/filter.h, linux/seccomp.h; numbers from the kernel's system call tables.
"""

from __future__ import annotations

import errno
import platform
import struct
from dataclasses import dataclass

from rollwright.contracts import EnvironmentUnavailable

# Instruction codes of classic BPF: load a word of the call's data; jump if equal, if any bit is set, if at least;
# return.
_LOAD, _JEQ, _JSET, _JGE, _RET = 0x20, 0x15, 0x45, 0x35, 0x06
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_NR_AT, _ARCH_AT, _ARGS_AT = 0, 4, 16
_X32_BIT = 0x40000000
NEW_NAMESPACES = 0x7E020080  # CLONE_NEW{TIME,NS,CGROUP,UTS,IPC,USER,PID,NET}
AF_UNIX, TIOCSTI, TIOCLINUX = 1, 0x5412, 0x541C


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """One instruction set: its audit number, its numbers of system calls."""

    audit_arch: int
    numbers: dict[str, int]
    has_x32: bool = False


# Calls numbered alike everywhere since the tables were unified.
_COMMON = {
    "pidfd_send_signal": 424, "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427,
    "open_tree": 428, "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432, "fspick": 433,
    "clone3": 435, "pidfd_getfd": 438, "process_madvise": 440, "mount_setattr": 442, "quotactl_fd": 443,
    "memfd_secret": 447, "process_mrelease": 448, "set_mempolicy_home_node": 450, "open_tree_attr": 467,
}  # fmt: skip

X86_64 = Machine(
    audit_arch=0xC000003E,
    has_x32=True,
    numbers=_COMMON
    | {
        "ioctl": 16, "shmget": 29, "shmat": 30, "shmctl": 31, "socket": 41, "connect": 42, "accept": 43,
        "bind": 49, "listen": 50, "socketpair": 53, "clone": 56, "semget": 64, "semop": 65, "semctl": 66,
        "shmdt": 67, "msgget": 68, "msgsnd": 69, "msgrcv": 70, "msgctl": 71, "ptrace": 101, "syslog": 103,
        "uselib": 134, "personality": 135, "ustat": 136, "sysfs": 139, "setpriority": 141,
        "sched_setparam": 142, "sched_setscheduler": 144, "vhangup": 153, "modify_ldt": 154, "pivot_root": 155,
        "_sysctl": 156, "adjtimex": 159, "chroot": 161, "acct": 163, "settimeofday": 164, "mount": 165,
        "umount2": 166, "swapon": 167, "swapoff": 168, "reboot": 169, "sethostname": 170, "setdomainname": 171,
        "iopl": 172, "ioperm": 173, "create_module": 174, "init_module": 175, "delete_module": 176,
        "get_kernel_syms": 177, "query_module": 178, "quotactl": 179, "nfsservctl": 180,
        "sched_setaffinity": 203, "io_setup": 206, "lookup_dcookie": 212, "remap_file_pages": 216,
        "semtimedop": 220, "clock_settime": 227, "mbind": 237, "set_mempolicy": 238, "mq_open": 240,
        "mq_unlink": 241, "kexec_load": 246, "add_key": 248, "request_key": 249, "keyctl": 250,
        "ioprio_set": 251, "migrate_pages": 256, "unshare": 272, "vmsplice": 278, "move_pages": 279,
        "accept4": 288, "perf_event_open": 298, "fanotify_init": 300, "fanotify_mark": 301, "prlimit64": 302,
        "name_to_handle_at": 303, "open_by_handle_at": 304, "clock_adjtime": 305, "setns": 308,
        "process_vm_readv": 310, "process_vm_writev": 311, "kcmp": 312, "finit_module": 313,
        "sched_setattr": 314, "memfd_create": 319, "kexec_file_load": 320, "bpf": 321, "userfaultfd": 323,
    },
)  # fmt: skip

AARCH64 = Machine(
    audit_arch=0xC00000B7,
    numbers=_COMMON
    | {
        "io_setup": 0, "lookup_dcookie": 18, "ioctl": 29, "ioprio_set": 30, "umount2": 39, "mount": 40,
        "pivot_root": 41, "nfsservctl": 42, "chroot": 51, "vhangup": 58, "quotactl": 60, "vmsplice": 75,
        "acct": 89, "personality": 92, "unshare": 97, "kexec_load": 104, "init_module": 105,
        "delete_module": 106, "clock_settime": 112, "syslog": 116, "ptrace": 117, "sched_setparam": 118,
        "sched_setscheduler": 119, "sched_setaffinity": 122, "setpriority": 140, "reboot": 142,
        "sethostname": 161, "setdomainname": 162, "settimeofday": 170, "adjtimex": 171, "mq_open": 180,
        "mq_unlink": 181, "msgget": 186, "msgctl": 187, "msgrcv": 188, "msgsnd": 189, "semget": 190,
        "semctl": 191, "semtimedop": 192, "semop": 193, "shmget": 194, "shmctl": 195, "shmat": 196,
        "shmdt": 197, "socket": 198, "socketpair": 199, "bind": 200, "listen": 201, "accept": 202,
        "connect": 203, "add_key": 217, "request_key": 218, "keyctl": 219, "clone": 220, "swapon": 224,
        "swapoff": 225, "remap_file_pages": 234, "mbind": 235, "set_mempolicy": 237, "migrate_pages": 238,
        "move_pages": 239, "perf_event_open": 241, "accept4": 242, "prlimit64": 261, "fanotify_init": 262,
        "fanotify_mark": 263, "name_to_handle_at": 264, "open_by_handle_at": 265, "clock_adjtime": 266,
        "setns": 268, "process_vm_readv": 270, "process_vm_writev": 271, "kcmp": 272, "finit_module": 273,
        "sched_setattr": 274, "memfd_create": 279, "bpf": 280, "userfaultfd": 282, "kexec_file_load": 294,
    },
)  # fmt: skip

MACHINES = {"x86_64": X86_64, "amd64": X86_64, "aarch64": AARCH64, "arm64": AARCH64}

# Calls that are judged by an argument: (call, argument, test, value). The call is denied where the test holds.
_BY_ARGUMENT = (
    ("clone", 0, "has_bits", NEW_NAMESPACES),
    ("socketpair", 0, "differs", AF_UNIX),  # event loops wake themselves through one; it reaches nobody else
    ("prlimit64", 0, "differs", 0),  # another process's limits
    ("sched_setparam", 0, "differs", 0),
    ("sched_setscheduler", 0, "differs", 0),
    ("sched_setaffinity", 0, "differs", 0),
    ("sched_setattr", 0, "differs", 0),
    ("ioctl", 1, "equals", TIOCSTI),
    ("ioctl", 1, "equals", TIOCLINUX),
)
_ENOSYS = ("clone3",)  # its flags lie in memory, where no filter can read them; C libraries fall back to clone
_ALLOWED = ("pidfd_send_signal",)


def seccomp_filter(machine: str = "") -> bytes:
    """The filter program, 8 bytes an instruction, as `bwrap --seccomp` and prctl(PR_SET_SECCOMP) take it.

    Args:
        machine: name of the instruction set as uname(1) gives it; empty for this machine's.

    Raises:
        EnvironmentUnavailable: there is no table of calls for it.
    """
    name = machine or platform.machine()
    if name.lower() not in MACHINES:
        raise EnvironmentUnavailable(
            f"the sandbox has no system call filter for {name!r}, only for {', '.join(MACHINES)}; without it untrusted "
            "code is not run (set `unsafe: true` to run it all the same)"
        )
    table = MACHINES[name.lower()]
    program = [(_LOAD, 0, 0, _ARCH_AT), (_JEQ, 1, 0, table.audit_arch), (_RET, 0, 0, _KILL), (_LOAD, 0, 0, _NR_AT)]
    if table.has_x32:
        program += [(_JGE, 0, 1, _X32_BIT), (_RET, 0, 0, _KILL)]
    judged = {call for call, *_ in _BY_ARGUMENT}
    for call, number in sorted(table.numbers.items(), key=lambda item: item[1]):
        if call in judged or call in _ALLOWED:
            continue
        program += [(_JEQ, 0, 1, number), _fail(errno.ENOSYS if call in _ENOSYS else errno.EPERM)]
    for call, argument, test, value in _BY_ARGUMENT:
        program += _argument_rule(table.numbers[call], argument, test, value)
    program.append((_RET, 0, 0, _ALLOW))
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in program)


def _argument_rule(number: int, argument: int, test: str, value: int) -> list[tuple[int, int, int, int]]:
    """Deny `number` by the low 32 bits of an argument, all that these calls read; then load the number again."""
    jump, if_true, if_false = {"has_bits": (_JSET, 0, 1), "equals": (_JEQ, 0, 1), "differs": (_JEQ, 1, 0)}[test]
    return [
        (_JEQ, 0, 4, number),
        (_LOAD, 0, 0, _ARGS_AT + 8 * argument),
        (jump, if_true, if_false, value),
        _fail(errno.EPERM),
        (_LOAD, 0, 0, _NR_AT),
    ]


def _fail(number: int) -> tuple[int, int, int, int]:
    return (_RET, 0, 0, _ERRNO | number)
