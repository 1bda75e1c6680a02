/* What guest and host share, in each of its shapes: include/linux/lguest.h of 2.6.23, 2.6.24, 2.6.31 and 2.6.35,
 * asm/lguest_hcall.h. A shape is named after the first release that has it; a type ends in that release's number. */

#define LHCALL_RING_SIZE 64

struct timespec {
    long tv_sec;
    long tv_nsec;
};

/* An asynchronous hypercall: arg0 is its number. 2.6.23 calls the four words eax, edx, ebx and ecx. */
struct hcall_args_23 {
    unsigned long arg0;
    unsigned long arg1;
    unsigned long arg2;
    unsigned long arg3;
};

/* Lies over the saved registers eax, ebx, ecx, edx, while argument 1 travels in edx. */
struct hcall_args_24 {
    unsigned long arg0;
    unsigned long arg2;
    unsigned long arg3;
    unsigned long arg1;
};

struct hcall_args_31 {
    unsigned long arg0;
    unsigned long arg1;
    unsigned long arg2;
    unsigned long arg3;
    unsigned long arg4;
};

struct lguest_data_23 {
    uint32_t irq_enabled;
    unsigned long blocked_interrupts;
    unsigned long cr2;
    struct timespec time;
    uint8_t hcall_status[LHCALL_RING_SIZE];
    struct hcall_args_23 hcalls[LHCALL_RING_SIZE];
    unsigned long reserve_mem;
    uint16_t guestid;
    uint32_t tsc_khz;
    unsigned long noirq_start;
    unsigned long noirq_end;
};

struct lguest_data_24 {
    uint32_t irq_enabled;
    unsigned long blocked_interrupts;
    unsigned long cr2;
    struct timespec time;
    uint8_t hcall_status[LHCALL_RING_SIZE];
    struct hcall_args_24 hcalls[LHCALL_RING_SIZE];
    unsigned long reserve_mem;
    uint32_t tsc_khz;
    unsigned long pgdir;
    unsigned long noirq_start;
    unsigned long noirq_end;
    unsigned long kernel_address;
    uint32_t syscall_vec;
};

struct lguest_data_30 {
    uint32_t irq_enabled;
    unsigned long blocked_interrupts;
    unsigned long cr2;
    struct timespec time;
    uint8_t hcall_status[LHCALL_RING_SIZE];
    struct hcall_args_23 hcalls[LHCALL_RING_SIZE];
    unsigned long reserve_mem;
    uint32_t tsc_khz;
    unsigned long pgdir;
    unsigned long noirq_start;
    unsigned long noirq_end;
    unsigned long kernel_address;
    uint32_t syscall_vec;
};

struct lguest_data_31 {
    uint32_t irq_enabled;
    unsigned long blocked_interrupts;
    unsigned long cr2;
    struct timespec time;
    uint32_t irq_pending;
    uint8_t hcall_status[LHCALL_RING_SIZE];
    struct hcall_args_31 hcalls[LHCALL_RING_SIZE];
    unsigned long reserve_mem;
    uint32_t tsc_khz;
    unsigned long pgdir;
    unsigned long noirq_start;
    unsigned long noirq_end;
    unsigned long kernel_address;
    uint32_t syscall_vec;
};

struct lguest_data_35 {
    uint32_t irq_enabled;
    unsigned long blocked_interrupts;
    unsigned long cr2;
    struct timespec time;
    uint32_t irq_pending;
    uint8_t hcall_status[LHCALL_RING_SIZE];
    struct hcall_args_31 hcalls[LHCALL_RING_SIZE];
    unsigned long reserve_mem;
    uint32_t tsc_khz;
    unsigned long noirq_start;
    unsigned long noirq_end;
    unsigned long kernel_address;
    uint32_t syscall_vec;
};
