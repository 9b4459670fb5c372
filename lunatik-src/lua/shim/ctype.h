/* SPDX-License-Identifier: MIT */
#ifndef LUNATIK_SHIM_CTYPE_H
#define LUNATIK_SHIM_CTYPE_H

/*
 * Lua's patterns promise the C locale, where only ASCII has classes. The
 * kernel's own <linux/ctype.h> follows Latin-1, where 0xe9 is a letter.
 */
static inline int isdigit(int c)
{
	return (unsigned int)c - '0' < 10;
}

static inline int islower(int c)
{
	return (unsigned int)c - 'a' < 26;
}

static inline int isupper(int c)
{
	return (unsigned int)c - 'A' < 26;
}

static inline int isalpha(int c)
{
	return islower(c | 0x20) && c < 0x80;
}

static inline int isalnum(int c)
{
	return isalpha(c) || isdigit(c);
}

static inline int isxdigit(int c)
{
	return isdigit(c) || ((unsigned int)(c | 0x20) - 'a' < 6 && c < 0x80);
}

static inline int isspace(int c)
{
	return c == ' ' || (unsigned int)c - '\t' < 5;
}

static inline int iscntrl(int c)
{
	return (unsigned int)c < 0x20 || c == 0x7f;
}

static inline int isgraph(int c)
{
	return c > 0x20 && c < 0x7f;
}

static inline int isprint(int c)
{
	return c >= 0x20 && c < 0x7f;
}

static inline int ispunct(int c)
{
	return isgraph(c) && !isalnum(c);
}

static inline int tolower(int c)
{
	return isupper(c) ? c | 0x20 : c;
}

static inline int toupper(int c)
{
	return islower(c) ? c & ~0x20 : c;
}

#endif
