/* What XENMEM_memory_map fills its buffer with, nothing aligned: xen/arch/x86/include/asm/e820.h. */

struct e820entry {
    uint64_t addr;
    uint64_t size;
    uint32_t type;
};
