__attribute__((section(".text.start"))) void _start(void) { for (;;) ; }
