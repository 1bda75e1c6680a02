struct sample {
    uint8_t byte;
    uint16_t half;
    unsigned long word;
    void *handle;
    int32_t number;
};
