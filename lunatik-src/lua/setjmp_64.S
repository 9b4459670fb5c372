/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * lunatik_setjmp() and lunatik_longjmp(): how an error leaves the interpreter.
 *
 * What is saved is what the System V ABI has a callee keep, in the order of
 * jmp_buf: rbx, rbp, r12, r13, r14, r15, the stack pointer, and where to
 * return to.
 *
 * longjmp puts that address on the stack it goes back to and leaves through
 * RET: so it takes the return thunk when the kernel mitigates with one, and it
 * is no indirect branch, so IBT wants no ENDBR at the landing.
 */
#include <linux/linkage.h>
#include <linux/objtool.h>

	.text

SYM_FUNC_START(lunatik_setjmp)
	movq	(%rsp), %rdx
	leaq	8(%rsp), %rcx
	movq	%rbx, 0(%rdi)
	movq	%rbp, 8(%rdi)
	movq	%r12, 16(%rdi)
	movq	%r13, 24(%rdi)
	movq	%r14, 32(%rdi)
	movq	%r15, 40(%rdi)
	movq	%rcx, 48(%rdi)
	movq	%rdx, 56(%rdi)
	xorl	%eax, %eax
	RET
SYM_FUNC_END(lunatik_setjmp)

/* objtool follows no stack pointer that comes out of memory. */
STACK_FRAME_NON_STANDARD lunatik_longjmp

SYM_FUNC_START(lunatik_longjmp)
	movl	%esi, %eax
	movq	0(%rdi), %rbx
	movq	8(%rdi), %rbp
	movq	16(%rdi), %r12
	movq	24(%rdi), %r13
	movq	32(%rdi), %r14
	movq	40(%rdi), %r15
	movq	56(%rdi), %rdx
	movq	48(%rdi), %rsp
	pushq	%rdx
	RET
SYM_FUNC_END(lunatik_longjmp)
