/* The heads of the calls for who controls Xen or its hardware; what follows is a union that says itself to be 128
 * bytes: xen/include/public/platform.h, sysctl.h, domctl.h. */

struct xen_platform_op {
    uint32_t cmd;
    uint32_t interface_version;
    uint8_t u[128];
};

struct xen_sysctl {
    uint32_t cmd;
    uint32_t interface_version;
    uint8_t u[128];
};

struct xen_domctl {
    uint32_t cmd;
    uint32_t interface_version;
    domid_t domain;
    uint16_t _pad[3];
    uint8_t u[128];
};
