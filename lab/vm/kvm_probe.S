/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The payload of lab/vm/accel.py: from the reset vector to long mode with
 * paging, a loop that writes memory, and a byte to the isa-debug-exit port.
 *
 * It must get that far: a KVM can run real mode in its emulator and still
 * never run a guest in long mode (seen on a host with the kvm-pvm module).
 *
 * The lab carries the bytes; to make them again:
 *	as kvm_probe.S -o probe.o && objcopy -O binary -j .text probe.o probe.bin
 * The code stands at offset 0xf000 of a 64 KiB ROM; the vector jumps there.
 */
	.set	real, 0xf000	/* offset in the segment after reset */
	.set	low, 0xff000	/* linear address below 1 MiB */

	.code16
	.text
start:
	cli
	lgdtl	%cs:gdtr - start + real
	movl	%cr0, %eax
	orb	$1, %al
	movl	%eax, %cr0
	ljmpl	$8, $protected - start + low

	.code32
protected:
	movl	$16, %eax
	movl	%eax, %ds
	movl	$0x2003, 0x1000		/* one 2 MiB page, mapped to itself */
	movl	$0x3003, 0x2000
	movl	$0x83, 0x3000
	movl	$0x1000, %eax
	movl	%eax, %cr3
	movl	%cr4, %eax
	orb	$0x20, %al		/* PAE */
	movl	%eax, %cr4
	movl	$0xc0000080, %ecx	/* EFER.LME */
	rdmsr
	orb	$1, %ah
	wrmsr
	movl	%cr0, %eax
	orl	$0x80000000, %eax	/* PG */
	movl	%eax, %cr0
	ljmpl	$24, $long - start + low

	.code64
long:
	movl	$20000000, %ecx		/* far too long for an emulator */
1:	incl	0x4000
	decl	%ecx
	jnz	1b
	movb	$0x10, %al
	outb	%al, $0xf4
2:	hlt
	jmp	2b

	.balign	8
gdt:
	.quad	0
	.quad	0x00cf9a000000ffff	/* code, 32 bits */
	.quad	0x00cf92000000ffff	/* data */
	.quad	0x00af9a000000ffff	/* code, 64 bits */
gdtr:
	.word	31
	.long	gdt - start + low
