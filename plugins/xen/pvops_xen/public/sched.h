/* Arguments of sched_op: xen/include/public/sched.h. */

struct sched_shutdown {
    uint32_t reason;
};

struct sched_poll {
    void *ports;
    uint32_t nr_ports;
    uint64_t timeout;
};

struct sched_remote_shutdown {
    domid_t domain_id;
    uint32_t reason;
};

struct sched_watchdog {
    uint32_t id;
    uint32_t timeout;
};
