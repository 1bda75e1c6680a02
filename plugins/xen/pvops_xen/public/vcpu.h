/* Arguments of vcpu_op: xen/include/public/vcpu.h. */

struct vcpu_runstate_info {
    int32_t state;
    uint64_t state_entry_time;
    uint64_t time[4];
};

struct vcpu_register_runstate_memory_area {
    union {
        void *h;
        uint64_t p;
    } addr;
};

struct vcpu_set_periodic_timer {
    uint64_t period_ns;
};

struct vcpu_set_singleshot_timer {
    uint64_t timeout_abs_ns;
    uint32_t flags;
};

struct vcpu_register_vcpu_info {
    uint64_t mfn;
    uint32_t offset;
    uint32_t rsvd;
};

struct vcpu_register_time_memory_area {
    union {
        void *h;
        uint64_t p;
    } addr;
};
