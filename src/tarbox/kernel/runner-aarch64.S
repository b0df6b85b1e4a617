// The runner, for aarch64. runner_image.py puts an ELF header before this code and a table after it; runner-x86_64.S
// says what the table holds and what the program does. Both go the same way, label by label.
//
//     aarch64-linux-gnu-as -o runner.o runner-aarch64.S && aarch64-linux-gnu-objcopy -O binary -j .text runner.o runner.bin
//
// Kept throughout: x19 the registers, x21 the header, x22 the row, x23 its index. A system call destroys only x0.

        .equ    IOCTL, 29
        .equ    CLOSE, 57
        .equ    WRITE, 64
        .equ    EXIT_GROUP, 94
        .equ    KILL, 129
        .equ    RT_SIGPROCMASK, 135
        .equ    RT_SIGTIMEDWAIT, 137
        .equ    SETPGID, 154
        .equ    GETSID, 156
        .equ    GETPID, 172
        .equ    CLONE, 220
        .equ    WAIT4, 260
        .equ    CLOSE_RANGE, 436

        .equ    EINTR, 4
        .equ    SIG_SETMASK, 2
        .equ    SIGCHLD, 17
        .equ    WNOHANG, 1
        .equ    TIOCSPGRP, 0x5410

        .text
        .globl  _start
_start:
        ldr     x0, [sp]                        // how many arguments
        add     x1, sp, #8
        add     x2, x1, x0, lsl #3
        add     x2, x2, #8                      // the environment comes after them and a null pointer
        sub     sp, sp, #512
        mov     x19, sp
        stp     x1, x2, [x19]
        sub     sp, sp, #48                     // for the arguments of a call
        adr     x21, header
        add     x22, x21, #8
        mov     x23, #0

next:   ldrb    w9, [x22, #56]
        lsl     w9, w9, #1                      // now bit 1 is the first argument's, which is word 1 of the row
        mov     x10, #6
argument:
        ldr     x11, [x22, x10, lsl #3]
        lsr     w12, w9, w10
        tbz     w12, #0, plain
        ldr     x11, [x19, x11, lsl #3]
plain:  sub     x10, x10, #1
        str     x11, [sp, x10, lsl #3]
        cbnz    x10, argument
        ldp     x0, x1, [sp]
        ldp     x2, x3, [sp, #16]
        ldp     x4, x5, [sp, #32]
        ldr     x8, [x22]
        tbnz    x8, #63, special
        svc     #0
        cmn     x0, #4095                       // the kernel returns -errno, which is -4095 to -1
        b.hs    error
        ldrb    w1, [x22, #57]
        cbz     w1, kept
        str     x0, [x19, x1, lsl #3]
kept:   ldrb    w1, [x22, #58]
passed: add     x1, x1, #1                      // and x1 more rows
        add     x23, x23, x1
        add     x22, x22, x1, lsl #6
        b       next

error:  neg     x24, x0
        ldr     w0, [x22, #60]                  // the two pairs, the first in the lower half
pair:   ubfx    w1, w0, #8, #8
        and     w2, w0, #255
        cmp     w2, w24
        b.eq    passed
        cmp     w2, #255
        b.eq    passed
        lsr     w0, w0, #16
        cbnz    w0, pair

        stp     x23, x24, [sp, #-16]!           // the report: index, errno
        ldr     x0, [x21]
        mov     x1, sp
        mov     x2, #16
        mov     x8, #WRITE
        svc     #0                              // nobody is left to tell if this fails
end:    mov     x0, #126
exit:   mov     x8, #EXIT_GROUP
        svc     #0
        udf     #0                              // a filter may refuse even that

special:
        adds    x8, x8, #1
        b.eq    end

// Process 1. On the stack: 0 all signals, 8 no signal, 16 a status or a process, 32 a siginfo.
        sub     sp, sp, #160
        mov     x0, #-1
        stp     x0, xzr, [sp]
        mov     x0, #SIG_SETMASK                // before the fork, so that none is lost
        mov     x1, sp
        mov     x2, #0
        mov     x3, #8
        mov     x8, #RT_SIGPROCMASK
        svc     #0
        tbnz    x0, #63, error                  // without it no SIGCHLD would ever be seen

        // Who leads the session has a terminal of its own, or none: only then may the child have the foreground.
        mov     x0, #0
        mov     x8, #GETSID
        svc     #0
        mov     x25, x0
        mov     x8, #GETPID
        svc     #0
        sub     x25, x25, x0                    // 0: this process leads the session

        mov     x0, #SIGCHLD                    // a plain fork
        mov     x1, #0
        mov     x2, #0
        mov     x3, #0
        mov     x4, #0
        mov     x8, #CLONE
        svc     #0
        tbnz    x0, #63, error
        cbz     x0, child

        mov     x24, x0                         // from here on: the child
        mov     x0, #3                          // all but the standard ones: the container sees /proc/1/fd
        mov     w1, #-1
        mov     x2, #0
        mov     x8, #CLOSE_RANGE
        svc     #0
        ldr     x0, [x21]                       // a filter may refuse that: whoever waits for a report would wait for ever
        mov     x8, #CLOSE
        svc     #0

wait:   mov     x0, sp
        add     x1, sp, #32
        mov     x2, #0                          // for as long as it takes
        mov     x3, #8
        mov     x8, #RT_SIGTIMEDWAIT
        svc     #0
        mov     x23, #WNOHANG
        cmp     x0, #SIGCHLD
        b.eq    reap
        cmn     x0, #EINTR
        b.eq    wait
        tbz     x0, #63, other
        mov     x23, #0                         // a filter refuses to wait for signals: wait for processes
        b       reap

other:  cbz     x25, forward
        ldr     w1, [sp, #40]                   // si_code: above 0 the kernel sent it (^C) to the whole group, child included
        cmp     w1, #0
        b.gt    wait
forward:
        mov     x1, x0
        mov     x0, x24
        mov     x8, #KILL
        svc     #0
        b       wait

reap:   mov     x0, #-1                         // one SIGCHLD may stand for many
        add     x1, sp, #16
        mov     x2, x23
        mov     x3, #0
        mov     x8, #WAIT4
        svc     #0
        cbz     x0, wait
        mov     x1, x0
        mov     x0, #126                        // can't happen, unless a filter refuses this as well
        tbnz    x1, #63, exit
        cmp     x1, x24
        b.ne    reap
        ldr     w1, [sp, #16]                   // the status of the child becomes ours
        ubfx    w0, w1, #8, #8
        ands    w1, w1, #0x7f
        b.eq    exit
        add     w0, w1, #128
        b       exit

child:  cbnz    x25, unblock
        mov     x0, #0                          // errors don't matter: without a terminal there is no foreground
        mov     x1, #0
        mov     x8, #SETPGID
        svc     #0
        mov     x8, #GETPID
        svc     #0
        str     w0, [sp, #16]
        mov     x0, #0                          // while SIGTTOU is still blocked
        mov     x1, #TIOCSPGRP
        add     x2, sp, #16
        mov     x8, #IOCTL
        svc     #0
unblock:
        mov     x0, #SIG_SETMASK
        add     x1, sp, #8
        mov     x2, #0
        mov     x3, #8
        mov     x8, #RT_SIGPROCMASK
        svc     #0
        mov     x1, #0
        b       passed

        .balign 8
header:
