/* What Xen shares with every guest, and the arrays of the busiest hypercalls: xen/include/public/xen.h,
 * arch-x86/xen.h, arch-x86/xen-x86_32.h, arch-x86/xen-x86_64.h. */

#define XEN_LEGACY_MAX_VCPUS 32
#define MAX_GUEST_CMDLINE 1024
#define EVTCHN_WORDS_32 32
#define EVTCHN_WORDS_64 64

typedef unsigned long xen_ulong_t;
typedef unsigned long xen_pfn_t;
typedef uint16_t domid_t;

#ifdef __x86_64__
typedef unsigned long xen_callback_t;

struct arch_vcpu_info {
    unsigned long cr2;
    unsigned long pad;
};

struct cpu_user_regs {
    uint64_t r15;
    uint64_t r14;
    uint64_t r13;
    uint64_t r12;
    uint64_t rbp;
    uint64_t rbx;
    uint64_t r11;
    uint64_t r10;
    uint64_t r9;
    uint64_t r8;
    uint64_t rax;
    uint64_t rcx;
    uint64_t rdx;
    uint64_t rsi;
    uint64_t rdi;
    uint32_t error_code;
    uint32_t entry_vector;
    uint64_t rip;
    uint16_t cs;
    uint16_t pad0;
    uint8_t saved_upcall_mask;
    uint8_t pad1[3];
    uint64_t rflags;
    uint64_t rsp;
    uint16_t ss;
    uint16_t pad2[3];
    uint16_t es;
    uint16_t pad3[3];
    uint16_t ds;
    uint16_t pad4[3];
    uint16_t fs;
    uint16_t pad5[3];
    uint16_t gs;
    uint16_t pad6[3];
};

/* What HYPERVISOR_iret finds on the guest's stack. */
struct iret_context {
    uint64_t rax;
    uint64_t r11;
    uint64_t rcx;
    uint64_t flags;
    uint64_t rip;
    uint64_t cs;
    uint64_t rflags;
    uint64_t rsp;
    uint64_t ss;
};
#else
struct xen_callback {
    unsigned long cs;
    unsigned long eip;
};
typedef struct xen_callback xen_callback_t;

struct arch_vcpu_info {
    unsigned long cr2;
    unsigned long pad[5];
};

struct cpu_user_regs {
    uint32_t ebx;
    uint32_t ecx;
    uint32_t edx;
    uint32_t esi;
    uint32_t edi;
    uint32_t ebp;
    uint32_t eax;
    uint16_t error_code;
    uint16_t entry_vector;
    uint32_t eip;
    uint16_t cs;
    uint8_t saved_upcall_mask;
    uint8_t pad0;
    uint32_t eflags;
    uint32_t esp;
    uint16_t ss;
    uint16_t pad1;
    uint16_t es;
    uint16_t pad2;
    uint16_t ds;
    uint16_t pad3;
    uint16_t fs;
    uint16_t pad4;
    uint16_t gs;
    uint16_t pad5;
};
#endif

struct trap_info {
    uint8_t vector;
    uint8_t flags;
    uint16_t cs;
    unsigned long address;
};

struct vcpu_guest_context {
    struct {
        char x[512];
    } fpu_ctxt;
    unsigned long flags;
    struct cpu_user_regs user_regs;
    struct trap_info trap_ctxt[256];
    unsigned long ldt_base;
    unsigned long ldt_ents;
    unsigned long gdt_frames[16];
    unsigned long gdt_ents;
    unsigned long kernel_ss;
    unsigned long kernel_sp;
    unsigned long ctrlreg[8];
    unsigned long debugreg[8];
#ifdef __x86_64__
    unsigned long event_callback_eip;
    unsigned long failsafe_callback_eip;
    unsigned long syscall_callback_eip;
#else
    unsigned long event_callback_cs;
    unsigned long event_callback_eip;
    unsigned long failsafe_callback_cs;
    unsigned long failsafe_callback_eip;
#endif
    unsigned long vm_assist;
#ifdef __x86_64__
    uint64_t fs_base;
    uint64_t gs_base_kernel;
    uint64_t gs_base_user;
#endif
};

struct vcpu_time_info {
    uint32_t version;
    uint32_t pad0;
    uint64_t tsc_timestamp;
    uint64_t system_time;
    uint32_t tsc_to_system_mul;
    int8_t tsc_shift;
    uint8_t flags;
    uint8_t pad1[2];
};

struct vcpu_info {
    uint8_t evtchn_upcall_pending;
    uint8_t evtchn_upcall_mask;
    xen_ulong_t evtchn_pending_sel;
    struct arch_vcpu_info arch;
    struct vcpu_time_info time;
};

struct arch_shared_info {
    unsigned long max_pfn;
    xen_pfn_t pfn_to_mfn_frame_list_list;
    unsigned long nmi_reason;
    unsigned long p2m_cr3;
    unsigned long p2m_vaddr;
    unsigned long p2m_generation;
#ifdef __i386__
    uint32_t wc_sec_hi;
#endif
};

/* Two levels of event channels: as many words as a word has bits. */
struct shared_info {
    struct vcpu_info vcpu_info[XEN_LEGACY_MAX_VCPUS];
#ifdef __x86_64__
    xen_ulong_t evtchn_pending[EVTCHN_WORDS_64];
    xen_ulong_t evtchn_mask[EVTCHN_WORDS_64];
#else
    xen_ulong_t evtchn_pending[EVTCHN_WORDS_32];
    xen_ulong_t evtchn_mask[EVTCHN_WORDS_32];
#endif
    uint32_t wc_version;
    uint32_t wc_sec;
    uint32_t wc_nsec;
#ifdef __x86_64__
    uint32_t wc_sec_hi;
#endif
    struct arch_shared_info arch;
};

struct start_info {
    char magic[32];
    unsigned long nr_pages;
    unsigned long shared_info;
    uint32_t flags;
    xen_pfn_t store_mfn;
    uint32_t store_evtchn;
    union {
        struct {
            xen_pfn_t mfn;
            uint32_t evtchn;
        } domU;
        struct {
            uint32_t info_off;
            uint32_t info_size;
        } dom0;
    } console;
    unsigned long pt_base;
    unsigned long nr_pt_frames;
    unsigned long mfn_list;
    unsigned long mod_start;
    unsigned long mod_len;
    char cmd_line[MAX_GUEST_CMDLINE];
    unsigned long first_p2m_pfn;
    unsigned long nr_p2m_frames;
};

struct mmu_update {
    uint64_t ptr;
    uint64_t val;
};

struct mmuext_op {
    uint32_t cmd;
    union {
        xen_pfn_t mfn;
        unsigned long linear_addr;
    } arg1;
    union {
        uint32_t nr_ents;
        void *vcpumask;
        xen_pfn_t src_mfn;
    } arg2;
};

struct multicall_entry {
    xen_ulong_t op;
    xen_ulong_t result;
    xen_ulong_t args[6];
};
