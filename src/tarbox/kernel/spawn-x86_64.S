# What starts the runner, for x86-64: long spawn(struct clone_args *, long size, long *what). runner.py puts it into
# memory of the calling process.
#
#     what    0 the program (a descriptor)   8 argv   16 envp   24 the error, 0 until there is one
#             32 descriptors to pass on, then -1
#
# It returns what clone3 returns to the parent. The child shares the parent's memory, stack and all, while the parent
# waits (CLONE_VM, CLONE_VFORK), so it touches nothing but the error. Its descriptors are its own. In a new user
# namespace it has all capabilities, and no id yet that would let it keep them: it makes them ambient.
#
#     as -o spawn.o spawn-x86_64.S && objcopy -O binary -j .text spawn.o spawn.bin

        .set    EXIT, 60
        .set    FCNTL, 72
        .set    CAPSET, 126
        .set    PRCTL, 157
        .set    EXECVEAT, 322
        .set    CLONE3, 435
        .set    CLOSE_RANGE, 436

        .set    F_SETFD, 2
        .set    AT_EMPTY_PATH, 0x1000
        .set    CLOSE_RANGE_CLOEXEC, 4
        .set    CLONE_NEWUSER_BIT, 28
        .set    PR_CAP_AMBIENT, 47
        .set    PR_CAP_AMBIENT_RAISE, 2

        .text
        mov     %rdx, %r9
        mov     $CLONE3, %eax
        syscall
        test    %rax, %rax
        jz      child
        ret

child:  btl     $CLONE_NEWUSER_BIT, (%rdi)
        jnc     descriptors
        lea     version(%rip), %rdi
        lea     8(%rdi), %rsi
        mov     $CAPSET, %eax
        syscall
        test    %rax, %rax
        js      failed
        xor     %edx, %edx
        xor     %r10d, %r10d
        xor     %r8d, %r8d
raise:  mov     $PR_CAP_AMBIENT, %edi
        mov     $PR_CAP_AMBIENT_RAISE, %esi
        mov     $PRCTL, %eax
        syscall
        inc     %edx
        test    %rax, %rax                      # EINVAL: there is no such capability any more
        jns     raise

descriptors:
        mov     $3, %edi                        # those that this process was started with, too
        mov     $-1, %esi
        mov     $CLOSE_RANGE_CLOEXEC, %edx
        mov     $CLOSE_RANGE, %eax
        syscall
        test    %rax, %rax
        js      failed
        lea     32(%r9), %rbx                   # %rbx is the child's own, too: it never returns
keep:   mov     (%rbx), %rdi
        test    %rdi, %rdi
        js      execute
        mov     $F_SETFD, %esi
        xor     %edx, %edx
        mov     $FCNTL, %eax
        syscall
        add     $8, %rbx
        test    %rax, %rax
        jns     keep
        jmp     failed

execute:
        mov     (%r9), %rdi
        lea     empty(%rip), %rsi
        mov     8(%r9), %rdx
        mov     16(%r9), %r10
        mov     $AT_EMPTY_PATH, %r8d
        mov     $EXECVEAT, %eax
        syscall                                 # returns only when it failed
failed: mov     %rax, 24(%r9)
        mov     $127, %edi
        mov     $EXIT, %eax
        syscall

        .balign 8
version:
        .long   0x20080522                      # struct __user_cap_header_struct: the version, this process
empty:  .long   0
        .fill   6, 4, -1                        # struct __user_cap_data_struct, twice: effective, permitted, inheritable
