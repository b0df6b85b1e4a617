# The runner, for x86-64. runner_image.py puts an ELF header before this code and a table after it:
#
#     header  errors (a descriptor), init (0 or 1)
#     rows    number, six arguments, flags (1: go on when it fails)        64 bytes each
#     end     a row whose number is negative
#
# It makes each system call in turn. At the end it executes argv[0] with the arguments argv[1] and on. Where something
# fails it writes the row's index and errno to the descriptor and leaves with 126, or 127 where there was no program.
# With init it stays as process 1, and the program becomes its child.
#
#     as -o runner.o runner-x86_64.S && objcopy -O binary -j .text runner.o runner.bin
#
# Kept throughout: %rbp the stack as the kernel gave it, %r13 the environment, %r14 the header, %rbx the row, %r12 its
# index. A system call destroys only %rax, %rcx and %r11.

        .set    WRITE, 1
        .set    CLOSE, 3
        .set    RT_SIGPROCMASK, 14
        .set    IOCTL, 16
        .set    GETPID, 39
        .set    CLONE, 56
        .set    EXECVE, 59
        .set    WAIT4, 61
        .set    KILL, 62
        .set    SETPGID, 109
        .set    GETSID, 124
        .set    RT_SIGTIMEDWAIT, 128
        .set    EXIT_GROUP, 231

        .set    ENOENT, 2
        .set    EINTR, 4
        .set    SIG_SETMASK, 2
        .set    SIGCHLD, 17
        .set    WNOHANG, 1
        .set    TIOCSPGRP, 0x5410

        .text
        .globl  _start
_start:
        mov     %rsp, %rbp
        mov     (%rbp), %rax                    # how many arguments
        lea     16(%rbp,%rax,8), %r13           # the environment comes after them and a null pointer
        lea     header(%rip), %r14
        lea     16(%r14), %rbx
        xor     %r12d, %r12d

next:   mov     (%rbx), %rax
        test    %rax, %rax
        js      last
        mov     8(%rbx), %rdi
        mov     16(%rbx), %rsi
        mov     24(%rbx), %rdx
        mov     32(%rbx), %r10
        mov     40(%rbx), %r8
        mov     48(%rbx), %r9
        syscall
        cmp     $-4095, %rax                    # the kernel returns -errno, which is -4095 to -1
        jb      passed
        testb   $1, 56(%rbx)
        jz      failed
passed: add     $64, %rbx
        inc     %r12d
        jmp     next

last:   cmpb    $0, 8(%r14)
        jnz     init

execute:
        mov     $EXECVE, %eax
        mov     8(%rbp), %rdi
        lea     16(%rbp), %rsi
        mov     %r13, %rdx
        syscall                                 # returns only when it failed

failed: neg     %rax
        push    %rax                            # the report: index, errno
        push    %r12
        mov     $WRITE, %eax
        mov     (%r14), %rdi
        mov     %rsp, %rsi
        mov     $16, %edx
        syscall                                 # nobody is left to tell if this fails
        mov     $126, %edi
        cmpq    $ENOENT, 8(%rsp)
        jne     exit
        cmpq    $0, (%rbx)                      # only of the program itself: another row's ENOENT is 126
        jns     exit
        inc     %edi
exit:   mov     $EXIT_GROUP, %eax
        syscall
        ud2                                     # a filter may refuse even that

# Process 1. On the stack: 0 all signals, 8 no signal, 16 a status or a process, 32 a siginfo.
init:   sub     $160, %rsp
        movq    $-1, (%rsp)
        movq    $0, 8(%rsp)
        mov     $RT_SIGPROCMASK, %eax           # before the fork, so that none is lost
        mov     $SIG_SETMASK, %edi
        mov     %rsp, %rsi
        xor     %edx, %edx
        mov     $8, %r10d
        syscall
        test    %rax, %rax                      # without it no SIGCHLD would ever be seen
        js      failed

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
        js      failed
        jz      child

        mov     %rax, %rbx                      # from here on: the child
        mov     $CLOSE, %eax                    # else whoever waits for a report would wait for ever
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
        jmp     execute

        .balign 8
header:
