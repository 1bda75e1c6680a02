/* Arguments of callback_op and nmi_op: xen/include/public/callback.h, nmi.h. */

struct callback_register {
    uint16_t type;
    uint16_t flags;
    xen_callback_t address;
};

struct callback_unregister {
    uint16_t type;
    uint16_t _unused;
};

struct xennmi_callback {
    unsigned long handler_address;
    unsigned long pad;
};
