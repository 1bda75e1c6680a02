/* Arguments of memory_op: xen/include/public/memory.h. */

struct xen_memory_reservation {
    void *extent_start;
    xen_ulong_t nr_extents;
    uint32_t extent_order;
    uint32_t mem_flags;
    domid_t domid;
};

struct xen_memory_exchange {
    struct xen_memory_reservation in;
    struct xen_memory_reservation out;
    xen_ulong_t nr_exchanged;
};

struct xen_memory_domain {
    domid_t domid;
};

struct xen_machphys_mfn_list {
    uint32_t max_extents;
    void *extent_start;
    uint32_t nr_extents;
};

struct xen_machphys_mapping {
    xen_ulong_t v_start;
    xen_ulong_t v_end;
    xen_ulong_t max_mfn;
};

struct xen_add_to_physmap {
    domid_t domid;
    uint16_t size;
    uint32_t space;
    xen_ulong_t idx;
    xen_pfn_t gpfn;
};

struct xen_add_to_physmap_batch {
    domid_t domid;
    uint16_t space;
    uint16_t size;
    union {
        domid_t foreign_domid;
        uint16_t res0;
    } u;
    void *idxs;
    void *gpfns;
    void *errs;
};

struct xen_remove_from_physmap {
    domid_t domid;
    xen_pfn_t gpfn;
};

struct xen_memory_map {
    uint32_t nr_entries;
    void *buffer;
};

struct xen_foreign_memory_map {
    domid_t domid;
    struct xen_memory_map map;
};

struct xen_pod_target {
    uint64_t target_pages;
    uint64_t tot_pages;
    uint64_t pod_cache_pages;
    uint64_t pod_entries;
    domid_t domid;
};

struct xen_mem_access_op {
    uint8_t op;
    uint8_t access;
    domid_t domid;
    uint32_t nr;
    uint64_t pfn;
    void *pfn_list;
    void *access_list;
};

struct xen_reserved_device_memory {
    xen_pfn_t start_pfn;
    xen_ulong_t nr_pages;
};

struct xen_reserved_device_memory_map {
    uint32_t flags;
    uint32_t nr_entries;
    void *buffer;
    union {
        struct physdev_pci_device pci;
    } dev;
};

struct xen_mem_acquire_resource {
    domid_t domid;
    uint16_t type;
    uint32_t id;
    uint32_t nr_frames;
    uint32_t pad;
    uint64_t frame;
    void *frame_list;
};

struct xen_vnuma_topology_info {
    domid_t domid;
    uint16_t pad;
    uint32_t nr_vnodes;
    uint32_t nr_vcpus;
    uint32_t nr_vmemranges;
    union {
        void *h;
        uint64_t pad;
    } vdistance;
    union {
        void *h;
        uint64_t pad;
    } vcpu_to_vnode;
    union {
        void *h;
        uint64_t pad;
    } vmemrange;
};
