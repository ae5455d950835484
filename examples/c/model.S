/* The model and its input, where firmware.c looks for them. */
    .section .rodata.model, "a"
    .balign 16
    .global image_start, image_end, input_start
image_start:
    .incbin IMAGE
image_end:
    .balign 16
input_start:
    .incbin INPUT
    .section .note.GNU-stack, "", %progbits
