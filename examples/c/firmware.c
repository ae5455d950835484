/* Firmware that plays an image: the model, the arena and the answer lie in memory, and nothing else is needed. Here
   for Arm's MPS2 with a Cortex-M4 in QEMU, with semihosting for output; firmware.ld says where everything lies. */
#include <omex.h>

extern const uint8_t image_start[], image_end[], input_start[];
extern uint32_t data_start[], data_end[], data_from[], bss_start[], bss_end[], stack_top[];

static _Alignas(OMEX_ALIGNMENT) uint8_t arena[256 << 10];

static int semihosting(int operation, const void *argument) {
    register int r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

static void write_text(const char *text) {
    semihosting(0x04, text);
}

static void write_number(long number) {
    char digits[16], *at = digits + sizeof digits - 1;
    unsigned long rest = number < 0 ? 0UL - (unsigned long)number : (unsigned long)number;
    *at = 0;
    do *--at = (char)('0' + rest % 10);
    while (rest /= 10);
    if (number < 0) *--at = '-';
    write_text(at);
}

static omex_status classify(void) {
    omex_source source = {.mapped = image_start, .length = (size_t)(image_end - image_start)};
    omex_engine *engine;
    omex_tensor input, output;
    size_t needed;
    omex_status status = omex_open(&source, arena, sizeof arena, NULL, &engine, &needed);
    write_text("arena ");
    write_number((long)needed);
    if (status == OMEX_STATUS_OK) status = omex_input(engine, 0, &input);
    for (size_t i = 0; status == OMEX_STATUS_OK && i < input.bytes; i++) {
        ((uint8_t *)input.data)[i] = input_start[i];
    }
    if (status == OMEX_STATUS_OK) status = omex_infer(engine);
    if (status == OMEX_STATUS_OK) status = omex_output(engine, 0, &output);
    if (status == OMEX_STATUS_OK) {
        write_text("\noutput");
        for (size_t i = 0; i < output.bytes; i++) {
            write_text(" ");
            write_number(((const int8_t *)output.data)[i]);
        }
    }
    return status;
}

void reset(void);

void reset(void) {
    for (uint32_t *to = data_start, *from = data_from; to < data_end;) *to++ = *from++;
    for (uint32_t *to = bss_start; to < bss_end;) *to++ = 0;
    /* The floating point unit. */
    *(volatile uint32_t *)0xe000ed88 |= 0xfu << 20;
    __asm__ volatile("dsb\n isb");
    omex_status status = classify();
    write_text("\nstatus ");
    write_text(omex_status_text(status));
    write_text("\n");
    semihosting(0x18, (void *)0x20026);
    for (;;) {
    }
}

static void fault(void) {
    write_text("\nstatus a fault\n");
    semihosting(0x18, (void *)0x20023);
    for (;;) {
    }
}

static const struct {
    const uint32_t *stack;
    void (*handlers[15])(void);
} vectors __attribute__((section(".vectors"), used)) = {stack_top, {reset, fault, fault, fault, fault, fault}};
