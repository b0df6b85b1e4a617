// What starts the runner, for aarch64; spawn-x86_64.S says how. Both go the same way, label by label.
//
//     aarch64-linux-gnu-as -o spawn.o spawn-aarch64.S && aarch64-linux-gnu-objcopy -O binary -j .text spawn.o spawn.bin

        .equ    FCNTL, 25
        .equ    CAPSET, 91
        .equ    EXIT, 93
        .equ    PRCTL, 167
        .equ    EXECVEAT, 281
        .equ    CLONE3, 435
        .equ    CLOSE_RANGE, 436

        .equ    F_SETFD, 2
        .equ    AT_EMPTY_PATH, 0x1000
        .equ    CLOSE_RANGE_CLOEXEC, 4
        .equ    CLONE_NEWUSER_BIT, 28
        .equ    PR_CAP_AMBIENT, 47
        .equ    PR_CAP_AMBIENT_RAISE, 2

        .text
        mov     x9, x2
        mov     x10, x0
        mov     x8, #CLONE3
        svc     #0
        cbz     x0, child
        ret

child:  ldr     x0, [x10]
        tbz     x0, #CLONE_NEWUSER_BIT, descriptors
        adr     x0, version
        add     x1, x0, #8
        mov     x8, #CAPSET
        svc     #0
        tbnz    x0, #63, failed
        mov     x2, #0
        mov     x3, #0
        mov     x4, #0
raise:  mov     x0, #PR_CAP_AMBIENT
        mov     x1, #PR_CAP_AMBIENT_RAISE
        mov     x8, #PRCTL
        svc     #0
        add     x2, x2, #1
        tbz     x0, #63, raise                  // EINVAL: there is no such capability any more

descriptors:
        mov     x0, #3                          // those that this process was started with, too
        mov     w1, #-1
        mov     x2, #CLOSE_RANGE_CLOEXEC
        mov     x8, #CLOSE_RANGE
        svc     #0
        tbnz    x0, #63, failed
        add     x19, x9, #32                    // x19 is the child's own, too: it never returns
keep:   ldr     x0, [x19], #8
        tbnz    x0, #63, execute
        mov     x1, #F_SETFD
        mov     x2, #0
        mov     x8, #FCNTL
        svc     #0
        tbz     x0, #63, keep
        b       failed

execute:
        ldr     x0, [x9]
        adr     x1, empty
        ldp     x2, x3, [x9, #8]
        mov     x4, #AT_EMPTY_PATH
        mov     x8, #EXECVEAT
        svc     #0                              // returns only when it failed
failed: str     x0, [x9, #24]
        mov     x0, #127
        mov     x8, #EXIT
        svc     #0

        .balign 8
version:
        .word   0x20080522                      // struct __user_cap_header_struct: the version, this process
empty:  .word   0
        .fill   6, 4, -1                        // struct __user_cap_data_struct, twice: effective, permitted, inheritable
