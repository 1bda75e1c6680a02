/* Arguments of hvm_op that are looked at, and dm_op's: xen/include/public/hvm/hvm_op.h, hvm/dm_op.h. */

struct xen_hvm_param {
    domid_t domid;
    uint16_t pad;
    uint32_t index;
    uint64_t value;
};

struct xen_hvm_pagetable_dying {
    domid_t domid;
    uint16_t pad[3];
    uint64_t gpa;
};

struct xen_hvm_get_time {
    uint64_t now;
};

struct xen_hvm_xentrace {
    uint16_t event;
    uint16_t extra_bytes;
    uint8_t extra[28];
};

struct xen_hvm_get_mem_type {
    domid_t domid;
    uint16_t mem_type;
    uint16_t pad[2];
    uint64_t pfn;
};

struct xen_dm_op_buf {
    void *h;
    xen_ulong_t size;
};
