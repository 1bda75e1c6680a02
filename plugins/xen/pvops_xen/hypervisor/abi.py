"""Numbers of Xen's guest interface (xen/include/public: xen.h, version.h, memory.h, vcpu.h, sched.h, event_channel.h).

Names stay as Xen's, so that a reader can look them up.
"""

import enum
from typing import Final

PAGE_SHIFT: Final = 12
PAGE_SIZE: Final = 1 << PAGE_SHIFT
PAGE_MASK: Final = PAGE_SIZE - 1

EPERM: Final = 1
ENOENT: Final = 2
ESRCH: Final = 3
EIO: Final = 5
ENOMEM: Final = 12
EBADRQC: Final = 56
ENODEV: Final = 19
EDOM: Final = 33
ENODATA: Final = 61
E2BIG: Final = 7
EACCES: Final = 13
EFAULT: Final = 14
EBUSY: Final = 16
EEXIST: Final = 17
EINVAL: Final = 22
ENOSPC: Final = 28
ENOSYS: Final = 38
EOPNOTSUPP: Final = 95
ERESTART: Final = 85

# From DOMID_FIRST_RESERVED on no domain has such a number (xen.h).
DOMID_SELF: Final = 0x7FF0
DOMID_IO: Final = 0x7FF1
DOMID_XEN: Final = 0x7FF2


class Hypercall(enum.IntEnum):
    """Hypercall numbers (xen.h, ``__HYPERVISOR_*``)."""

    SET_TRAP_TABLE = 0
    MMU_UPDATE = 1
    SET_GDT = 2
    STACK_SWITCH = 3
    SET_CALLBACKS = 4
    FPU_TASKSWITCH = 5
    SCHED_OP_COMPAT = 6
    PLATFORM_OP = 7
    SET_DEBUGREG = 8
    GET_DEBUGREG = 9
    UPDATE_DESCRIPTOR = 10
    MEMORY_OP = 12
    MULTICALL = 13
    UPDATE_VA_MAPPING = 14
    SET_TIMER_OP = 15
    EVENT_CHANNEL_OP_COMPAT = 16
    XEN_VERSION = 17
    CONSOLE_IO = 18
    PHYSDEV_OP_COMPAT = 19
    GRANT_TABLE_OP = 20
    VM_ASSIST = 21
    UPDATE_VA_MAPPING_OTHERDOMAIN = 22
    IRET = 23
    VCPU_OP = 24
    SET_SEGMENT_BASE = 25
    MMUEXT_OP = 26
    XSM_OP = 27
    NMI_OP = 28
    SCHED_OP = 29
    CALLBACK_OP = 30
    XENOPROF_OP = 31
    EVENT_CHANNEL_OP = 32
    PHYSDEV_OP = 33
    HVM_OP = 34
    SYSCTL = 35
    DOMCTL = 36
    KEXEC_OP = 37
    TMEM_OP = 38
    ARGO_OP = 39
    XENPMU_OP = 40
    DM_OP = 41
    HYPFS_OP = 42
    MCA = 48
    PAGING_DOMCTL_CONT = 49


class MmuUpdate(enum.IntEnum):
    """Low two bits of ``mmu_update.ptr``."""

    NORMAL_PT_UPDATE = 0
    MACHPHYS_UPDATE = 1
    PT_UPDATE_PRESERVE_AD = 2
    PT_UPDATE_NO_TRANSLATE = 3


class MmuExt(enum.IntEnum):
    """``mmuext_op.cmd``."""

    PIN_L1_TABLE = 0
    PIN_L2_TABLE = 1
    PIN_L3_TABLE = 2
    PIN_L4_TABLE = 3
    UNPIN_TABLE = 4
    NEW_BASEPTR = 5
    TLB_FLUSH_LOCAL = 6
    INVLPG_LOCAL = 7
    TLB_FLUSH_MULTI = 8
    INVLPG_MULTI = 9
    TLB_FLUSH_ALL = 10
    INVLPG_ALL = 11
    FLUSH_CACHE = 12
    SET_LDT = 13
    NEW_USER_BASEPTR = 15
    CLEAR_PAGE = 16
    COPY_PAGE = 17
    FLUSH_CACHE_GLOBAL = 18
    MARK_SUPER = 19
    UNMARK_SUPER = 20


MMUEXT_ARGUMENTS: Final = {
    **dict.fromkeys((MmuExt.INVLPG_MULTI, MmuExt.SET_LDT, MmuExt.COPY_PAGE), (1, 2)),
    MmuExt.TLB_FLUSH_MULTI: (2,),
    **dict.fromkeys((MmuExt.TLB_FLUSH_LOCAL, MmuExt.TLB_FLUSH_ALL, MmuExt.FLUSH_CACHE, MmuExt.FLUSH_CACHE_GLOBAL), ()),
}
"""Which of its two arguments an operation has, if not the first alone (xen/include/public/xen.h)."""
UVMF_NONE: Final = 0
UVMF_TLB_FLUSH: Final = 1
UVMF_INVLPG: Final = 2
UVMF_FLUSHTYPE_MASK: Final = 3
UVMF_ALL: Final = 1 << 2


class VmAssist(enum.IntEnum):
    """``vm_assist`` types."""

    FOUR_GB_SEGMENTS = 0
    FOUR_GB_SEGMENTS_NOTIFY = 1
    WRITABLE_PAGETABLES = 2
    PAE_EXTENDED_CR3 = 3
    ARCHITECTURAL_IOPL = 4
    RUNSTATE_UPDATE_FLAG = 5
    M2P_STRICT = 32


class Virq(enum.IntEnum):
    """Virtual interrupts that an unprivileged domain may bind."""

    TIMER = 0
    DEBUG = 1
    XENOPROF = 7
    ARGO = 11
    XENPMU = 13


NR_VIRQS: Final = 24


class VcpuOp(enum.IntEnum):
    """``vcpu_op`` commands (vcpu.h)."""

    INITIALISE = 0
    UP = 1
    DOWN = 2
    IS_UP = 3
    GET_RUNSTATE_INFO = 4
    REGISTER_RUNSTATE_MEMORY_AREA = 5
    SET_PERIODIC_TIMER = 6
    STOP_PERIODIC_TIMER = 7
    SET_SINGLESHOT_TIMER = 8
    STOP_SINGLESHOT_TIMER = 9
    REGISTER_VCPU_INFO = 10
    SEND_NMI = 11
    GET_PHYSID = 12
    REGISTER_VCPU_TIME_MEMORY_AREA = 13


class SchedOp(enum.IntEnum):
    """``sched_op`` commands (sched.h)."""

    YIELD = 0
    BLOCK = 1
    SHUTDOWN = 2
    POLL = 3
    REMOTE_SHUTDOWN = 4
    SHUTDOWN_CODE = 5
    WATCHDOG = 6
    PIN_OVERRIDE = 7


class EvtchnOp(enum.IntEnum):
    """``event_channel_op`` commands (event_channel.h)."""

    BIND_INTERDOMAIN = 0
    BIND_VIRQ = 1
    BIND_PIRQ = 2
    CLOSE = 3
    SEND = 4
    STATUS = 5
    ALLOC_UNBOUND = 6
    BIND_IPI = 7
    BIND_VCPU = 8
    UNMASK = 9
    RESET = 10
    INIT_CONTROL = 11
    EXPAND_ARRAY = 12
    SET_PRIORITY = 13
    RESET_CONT = 14


class Callback(enum.IntEnum):
    """``callback_register.type`` (callback.h)."""

    EVENT = 0
    FAILSAFE = 1
    SYSCALL = 2
    SYSENTER_DEPRECATED = 3
    NMI = 4
    SYSENTER = 5
    SYSCALL32 = 7


CALLBACKF_MASK_EVENTS: Final = 1


class MemoryOp(enum.IntEnum):
    """``memory_op`` commands (memory.h)."""

    INCREASE_RESERVATION = 0
    DECREASE_RESERVATION = 1
    MAXIMUM_RAM_PAGE = 2
    CURRENT_RESERVATION = 3
    MAXIMUM_RESERVATION = 4
    MACHPHYS_MFN_LIST = 5
    POPULATE_PHYSMAP = 6
    ADD_TO_PHYSMAP = 7
    MEMORY_MAP = 9
    MACHINE_MEMORY_MAP = 10
    EXCHANGE = 11
    MACHPHYS_MAPPING = 12
    SET_MEMORY_MAP = 13
    MAXIMUM_GPFN = 14
    REMOVE_FROM_PHYSMAP = 15
    SET_POD_TARGET = 16
    GET_POD_TARGET = 17
    GET_SHARING_FREED_PAGES = 18
    GET_SHARING_SHARED_PAGES = 19
    ACCESS_OP = 21
    ADD_TO_PHYSMAP_BATCH = 23
    CLAIM_PAGES = 24
    MACHPHYS_COMPAT_MFN_LIST = 25
    GET_VNUMAINFO = 26
    RESERVED_DEVICE_MEMORY_MAP = 27
    ACQUIRE_RESOURCE = 28


class PhysdevOp(enum.IntEnum):
    """``physdev_op`` commands (physdev.h)."""

    IRQ_UNMASK_NOTIFY = 4
    IRQ_STATUS_QUERY = 5
    SET_IOPL = 6
    SET_IOBITMAP = 7
    APIC_READ = 8
    APIC_WRITE = 9
    ALLOC_IRQ_VECTOR = 10
    EOI = 12
    MAP_PIRQ = 13
    UNMAP_PIRQ = 14
    MANAGE_PCI_ADD = 15
    MANAGE_PCI_REMOVE = 16
    PIRQ_EOI_GMFN_V1 = 17
    RESTORE_MSI = 19
    MANAGE_PCI_ADD_EXT = 20
    SETUP_GSI = 21
    GET_FREE_PIRQ = 23
    PCI_MMCFG_RESERVED = 24
    PCI_DEVICE_ADD = 25
    PCI_DEVICE_REMOVE = 26
    RESTORE_MSI_EXT = 27
    PIRQ_EOI_GMFN_V2 = 28
    DBGP_OP = 29
    PREPARE_MSIX = 30
    RELEASE_MSIX = 31


class VersionOp(enum.IntEnum):
    """``xen_version`` commands (version.h)."""

    VERSION = 0
    EXTRAVERSION = 1
    COMPILE_INFO = 2
    CAPABILITIES = 3
    CHANGESET = 4
    PLATFORM_PARAMETERS = 5
    GET_FEATURES = 6
    PAGESIZE = 7
    GUEST_HANDLE = 8
    COMMANDLINE = 9
    BUILD_ID = 10


class Segbase(enum.IntEnum):
    """``set_segment_base`` selectors (arch-x86/xen-x86_64.h)."""

    FS = 0
    GS_USER = 1
    GS_KERNEL = 2
    GS_USER_SEL = 3


VGCF_IN_SYSCALL: Final = 1 << 8
VGCF_I387_VALID: Final = 1 << 0
VGCF_IN_KERNEL: Final = 1 << 2
VGCF_FAILSAFE_DISABLES_EVENTS: Final = 1 << 3
VGCF_SYSCALL_DISABLES_EVENTS: Final = 1 << 4
VGCF_ONLINE: Final = 1 << 5
TRAP_SYSCALL: Final = 1 << 8  # of cpu_user_regs.entry_vector: Xen leaves by sysret

SHUTDOWN_REASONS: Final = ("poweroff", "reboot", "suspend", "crash", "watchdog", "soft_reset")

# The GDT entries from here on are Xen's own; the guest has the 14 pages before (xen-x86_32.h, xen-x86_64.h).
FIRST_RESERVED_GDT_PAGE: Final = 14
FIRST_RESERVED_GDT_ENTRY: Final = FIRST_RESERVED_GDT_PAGE * 512

# Selectors of Xen's own part of the GDT, from its entry 0xE000 >> 3 on (arch-x86/xen-x86_64.h, xen-x86_32.h). A 64-bit
# guest's kernel runs in ring 3 as its users do; a 32-bit one has ring 1.
FLAT_KERNEL_CS64: Final = 0xE033
FLAT_KERNEL_SS64: Final = 0xE02B
FLAT_USER_CS32: Final = 0xE023
FLAT_RING1_CS32: Final = 0xE019
FLAT_RING1_DS32: Final = 0xE021
FLAT_RING3_DS32: Final = 0xE033

# Addresses that are Xen's and that no guest may map (the same headers).
HYPERVISOR_VIRT_START64: Final = 0xFFFF_8000_0000_0000
HYPERVISOR_VIRT_END64: Final = 0xFFFF_8800_0000_0000
HYPERVISOR_VIRT_START32: Final = 0xF580_0000

NR_TRAPS: Final = 256
TRAP_PAGE_FAULT: Final = 14
TRAP_GP_FAULT: Final = 13
TRAP_SYSCALL_HYPERCALL32: Final = 0x82  # int 0x82 (HYPERCALL_VECTOR)
