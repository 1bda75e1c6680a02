/* Arguments of physdev_op: xen/include/public/physdev.h. */

struct physdev_eoi {
    uint32_t irq;
};

struct physdev_pirq_eoi_gmfn {
    xen_pfn_t gmfn;
};

struct physdev_irq_status_query {
    uint32_t irq;
    uint32_t flags;
};

struct physdev_set_iopl {
    uint32_t iopl;
};

struct physdev_set_iobitmap {
    void *bitmap;
    uint32_t nr_ports;
};

struct physdev_apic {
    unsigned long apic_physbase;
    uint32_t reg;
    uint32_t value;
};

struct physdev_irq {
    uint32_t irq;
    uint32_t vector;
};

struct physdev_map_pirq {
    domid_t domid;
    int32_t type;
    int32_t index;
    int32_t pirq;
    int32_t bus;
    int32_t devfn;
    int32_t entry_nr;
    uint64_t table_base;
};

struct physdev_unmap_pirq {
    domid_t domid;
    int32_t pirq;
};

struct physdev_manage_pci {
    uint8_t bus;
    uint8_t devfn;
};

struct physdev_restore_msi {
    uint8_t bus;
    uint8_t devfn;
};

struct physdev_manage_pci_ext {
    uint8_t bus;
    uint8_t devfn;
    uint32_t is_extfn;
    uint32_t is_virtfn;
    struct {
        uint8_t bus;
        uint8_t devfn;
    } physfn;
};

struct physdev_setup_gsi {
    int32_t gsi;
    uint8_t triggering;
    uint8_t polarity;
};

struct physdev_get_free_pirq {
    int32_t type;
    uint32_t pirq;
};

struct physdev_pci_mmcfg_reserved {
    uint64_t address;
    uint16_t segment;
    uint8_t start_bus;
    uint8_t end_bus;
    uint32_t flags;
};

struct physdev_pci_device_add {
    uint16_t seg;
    uint8_t bus;
    uint8_t devfn;
    uint32_t flags;
    struct {
        uint8_t bus;
        uint8_t devfn;
    } physfn;
};

struct physdev_pci_device {
    uint16_t seg;
    uint8_t bus;
    uint8_t devfn;
};

struct physdev_dbgp_op {
    uint8_t op;
    uint8_t bus;
    union {
        struct physdev_pci_device pci;
    } u;
};

/* Of physdev_op_compat, Xen 3.0.2 and before. */
struct physdev_op {
    uint32_t cmd;
    union {
        struct physdev_irq_status_query irq_status_query;
        struct physdev_set_iopl set_iopl;
        struct physdev_set_iobitmap set_iobitmap;
        struct physdev_apic apic_op;
        struct physdev_irq irq_op;
    } u;
};
