# The runner, for x86-64. runner_image.py puts an ELF header before this code and a table after it:
#
#     header  errors (a descriptor)                                        8 bytes
#     rows    a number and six arguments, 8 bytes each, then 8 single bytes:
#             56 which arguments are in a register (bit 0: the first), and the argument is the register's number
#             57 the register that keeps the result, or 0
#             58 how many rows to pass over when it succeeds
#             60 an errno (0: none, 255: any), and how many rows to pass over at that one; 62 the same once more
#     end     a row whose number is -1
#
# It makes each system call in turn. Registers are 64 words on the stack; 0 has the address of the arguments, 1 that of
# the environment. Where something fails with an errno that its row doesn't name, it writes the row's index and errno to
# the descriptor and leaves with 126. At the row -2 it forks: it stays as process 1, and the child goes on.
#
#     as -o runner.o runner-x86_64.S && objcopy -O binary -j .text runner.o runner.bin
#
# Kept throughout: %rbp the registers, %r14 the header, %rbx the row, %r12 its index. A system call destroys only %rax,
# %rcx and %r11.

        .set    WRITE, 1
        .set    CLOSE, 3
        .set    RT_SIGPROCMASK, 14
        .set    IOCTL, 16
        .set    GETPID, 39
        .set    CLONE, 56
        .set    WAIT4, 61
        .set    KILL, 62
        .set    SETPGID, 109
        .set    GETSID, 124
        .set    RT_SIGTIMEDWAIT, 128
        .set    EXIT_GROUP, 231
        .set    CLOSE_RANGE, 436

        .set    EINTR, 4
        .set    SIG_SETMASK, 2
        .set    SIGCHLD, 17
        .set    WNOHANG, 1
        .set    TIOCSPGRP, 0x5410

        .text
        .globl  _start
_start:
        mov     (%rsp), %rcx                    # how many arguments
        lea     8(%rsp), %rax
        lea     8(%rax,%rcx,8), %rdx            # the environment comes after them and a null pointer
        sub     $512, %rsp
        mov     %rsp, %rbp
        mov     %rax, (%rbp)
        mov     %rdx, 8(%rbp)
        lea     header(%rip), %r14
        lea     8(%r14), %rbx
        xor     %r12d, %r12d

next:   movzbl  56(%rbx), %edx
        add     %edx, %edx                      # now bit 1 is the first argument's, which is word 1 of the row
        mov     $6, %ecx
argument:
        mov     (%rbx,%rcx,8), %rax
        bt      %ecx, %edx
        jnc     plain
        mov     (%rbp,%rax,8), %rax
plain:  push    %rax
        dec     %ecx
        jnz     argument
        pop     %rdi
        pop     %rsi
        pop     %rdx
        pop     %r10
        pop     %r8
        pop     %r9
        mov     (%rbx), %rax
        test    %rax, %rax
        js      special
        syscall
        cmp     $-4095, %rax                    # the kernel returns -errno, which is -4095 to -1
        jae     error
        movzbl  57(%rbx), %ecx
        jrcxz   kept
        mov     %rax, (%rbp,%rcx,8)
kept:   movzbl  58(%rbx), %ecx
passed: inc     %ecx                            # and %ecx more rows
        add     %ecx, %r12d
        shl     $6, %ecx
        add     %rcx, %rbx
        jmp     next

error:  neg     %rax
        mov     %rax, %rdx
        mov     60(%rbx), %eax                  # the two pairs, the first in the lower half
pair:   movzbl  %ah, %ecx
        movzbl  %al, %esi
        cmp     %esi, %edx
        je      passed
        cmp     $255, %esi
        je      passed
        shr     $16, %eax
        jnz     pair

        push    %rdx                            # the report: index, errno
        push    %r12
        mov     $WRITE, %eax
        mov     (%r14), %rdi
        mov     %rsp, %rsi
        mov     $16, %edx
        syscall                                 # nobody is left to tell if this fails
end:    mov     $126, %edi
exit:   mov     $EXIT_GROUP, %eax
        syscall
        ud2                                     # a filter may refuse even that

special:
        inc     %rax
        jz      end

# Process 1. On the stack: 0 all signals, 8 no signal, 16 a status or a process, 32 a siginfo.
        sub     $160, %rsp
        movq    $-1, (%rsp)
        movq    $0, 8(%rsp)
        mov     $RT_SIGPROCMASK, %eax           # before the fork, so that none is lost
        mov     $SIG_SETMASK, %edi
        mov     %rsp, %rsi
        xor     %edx, %edx
        mov     $8, %r10d
        syscall
        test    %rax, %rax                      # without it no SIGCHLD would ever be seen
        js      error

        # Who leads the session has a terminal of its own, or none: only then may the child have the foreground.
        mov     $GETSID, %eax
        xor     %edi, %edi
        syscall
        mov     %rax, %r15
        mov     $GETPID, %eax
        syscall
        sub     %rax, %r15                      # 0: this process leads the session

        mov     $CLONE, %eax                    # a plain fork
        mov     $SIGCHLD, %edi
        xor     %esi, %esi
        xor     %edx, %edx
        xor     %r10d, %r10d
        xor     %r8d, %r8d
        syscall
        test    %rax, %rax
        js      error
        jz      child

        mov     %rax, %rbx                      # from here on: the child
        mov     $CLOSE_RANGE, %eax              # all but the standard ones: the container sees /proc/1/fd
        mov     $3, %edi
        mov     $-1, %esi
        xor     %edx, %edx
        syscall
        mov     $CLOSE, %eax                    # a filter may refuse that: whoever waits for a report would wait for ever
        mov     (%r14), %rdi
        syscall

wait:   mov     $RT_SIGTIMEDWAIT, %eax
        mov     %rsp, %rdi
        lea     32(%rsp), %rsi
        xor     %edx, %edx                      # for as long as it takes
        mov     $8, %r10d
        syscall
        mov     $WNOHANG, %r12d
        cmp     $SIGCHLD, %rax
        je      reap
        cmp     $-EINTR, %rax
        je      wait
        test    %rax, %rax
        jns     other
        xor     %r12d, %r12d                    # a filter refuses to wait for signals: wait for processes
        jmp     reap

other:  test    %r15, %r15
        jz      forward
        cmpl    $0, 40(%rsp)                    # si_code: above 0 the kernel sent it (^C) to the whole group, child included
        jg      wait
forward:
        mov     %rax, %rsi
        mov     $KILL, %eax
        mov     %rbx, %rdi
        syscall
        jmp     wait

reap:   mov     $WAIT4, %eax                    # one SIGCHLD may stand for many
        mov     $-1, %rdi
        lea     16(%rsp), %rsi
        mov     %r12, %rdx
        xor     %r10d, %r10d
        syscall
        test    %rax, %rax
        jz      wait
        mov     $126, %edi                      # can't happen, unless a filter refuses this as well
        js      exit
        cmp     %rbx, %rax
        jne     reap
        mov     16(%rsp), %edi                  # the status of the child becomes ours
        and     $0x7f, %edi
        jz      exited
        add     $128, %edi
        jmp     exit
exited: movzbl  17(%rsp), %edi
        jmp     exit

child:  test    %r15, %r15
        jnz     unblock
        mov     $SETPGID, %eax                  # errors don't matter: without a terminal there is no foreground
        xor     %edi, %edi
        xor     %esi, %esi
        syscall
        mov     $GETPID, %eax
        syscall
        mov     %eax, 16(%rsp)
        mov     $IOCTL, %eax                    # while SIGTTOU is still blocked
        xor     %edi, %edi
        mov     $TIOCSPGRP, %esi
        lea     16(%rsp), %rdx
        syscall
unblock:
        mov     $RT_SIGPROCMASK, %eax
        mov     $SIG_SETMASK, %edi
        lea     8(%rsp), %rsi
        xor     %edx, %edx
        mov     $8, %r10d
        syscall
        xor     %ecx, %ecx
        jmp     passed

        .balign 8
header:
