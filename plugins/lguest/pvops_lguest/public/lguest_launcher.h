/* What launcher and guest share of devices: include/linux/lguest_launcher.h of 2.6.23, 2.6.24 and 2.6.25, where
 * shapes differ named as in lguest.h; linux/lguest_bus.h. */

#define LGUEST_MAX_DMA_SECTIONS 16

struct lguest_dma {
    uint32_t used_len;
    unsigned long addr[LGUEST_MAX_DMA_SECTIONS];
    uint16_t len[LGUEST_MAX_DMA_SECTIONS];
};

struct lguest_block_page {
    int32_t type;
    uint32_t sector;
    uint32_t bytes;
    int32_t result;
    uint32_t num_sectors;
};

struct lguest_device_desc_23 {
    uint16_t type;
    uint16_t features;
    uint16_t status;
    uint16_t num_pages;
    uint32_t pfn;
};

/* Typed fields follow. */
struct lguest_device_desc_24 {
    uint8_t type;
    uint8_t config_len;
    uint8_t status;
};

/* Queues, feature bytes twice and configuration bytes follow. */
struct lguest_device_desc_25 {
    uint8_t type;
    uint8_t num_vq;
    uint8_t feature_len;
    uint8_t config_len;
    uint8_t status;
};

/* Of a queue; 2.6.24's field of type 2 has the same. */
struct lguest_vqconfig {
    uint16_t num;
    uint16_t irq;
    uint32_t pfn;
};
