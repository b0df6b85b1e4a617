/* Makes each system call of LIST and prints `name errno` (0: it worked), by one of the ways of calling of this machine:

   gcc -static -nostdlib calls.c             native
   gcc -static -nostdlib -m32 calls.c        i386, by `int 0x80`
   gcc -static -nostdlib -DX32 calls.c       x32: x86-64 with a bit in the number

   -DLIST='ONE(name, first, second, third) …'. The numbers are those of the kernel's own headers. Without a C library, as
   there is none for all three. */

#if defined X32
#include <asm/unistd_x32.h>
#undef __X32_SYSCALL_BIT
#define __X32_SYSCALL_BIT 0x40000000
#elif defined __i386__
#include <x86_64-linux-gnu/asm/unistd_32.h>
#else
#include <asm/unistd.h>
#endif

typedef unsigned long word;

#if defined __i386__
static long call(word number, word a, word b, word c)
{
	long result;
	__asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(a), "c"(b), "d"(c), "S"(0), "D"(0) : "memory");
	return result;
}
enum { WRITE = 4, EXIT = 1 };
#elif defined __x86_64__
static long call(word number, word a, word b, word c)
{
	long result;
	register word d __asm__("r10") = 0, e __asm__("r8") = 0;
	__asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(d), "r"(e) : "rcx", "r11", "memory");
	return result;
}
enum { WRITE = 1, EXIT = 60 };
#else
static long call(word number, word a, word b, word c)
{
	register word n __asm__("x8") = number, x0 __asm__("x0") = a, x1 __asm__("x1") = b, x2 __asm__("x2") = c;
	register word x3 __asm__("x3") = 0, x4 __asm__("x4") = 0;
	__asm__ volatile("svc 0" : "+r"(x0) : "r"(n), "r"(x1), "r"(x2), "r"(x3), "r"(x4) : "memory");
	return x0;
}
enum { WRITE = 64, EXIT = 93 };
#endif

static void show(const char *name, long result)
{
	char line[80];
	int at = 0;
	word left = result < 0 && result > -4096 ? -result : 0, unit = 1000;
	while (name[at] && at < 60) {
		line[at] = name[at];
		at++;
	}
	line[at++] = ' ';
	for (; unit; unit /= 10)
		if (left >= unit || unit == 1)
			line[at++] = '0' + left / unit % 10;
	line[at++] = '\n';
	call(WRITE, 1, (word)line, at);
}

#define ONE(name, a, b, c) show(#name, call(__NR_##name, (word)(a), (word)(b), (word)(c)));

void _start(void)
{
	static word inet[3] = {2, 1, 0};
	(void)inet;
	LIST
	call(EXIT, 0, 0, 0);
}
