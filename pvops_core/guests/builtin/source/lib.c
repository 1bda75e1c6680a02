// SPDX-License-Identifier: GPL-2.0
/* Memory, strings and console text. */
#include "kernel.h"

void *memset(void *to, int byte, size_t count)
{
	void *start = to;

	asm volatile("rep stosb" : "+D" (to), "+c" (count) : "a" (byte) : "memory");
	return start;
}

void *memcpy(void *to, const void *from, size_t count)
{
	void *start = to;

	asm volatile("rep movsb" : "+D" (to), "+S" (from), "+c" (count) : : "memory");
	return start;
}

int memcmp(const void *a, const void *b, size_t count)
{
	const u8 *x = a, *y = b;

	for (; count; count--, x++, y++)
		if (*x != *y)
			return *x - *y;
	return 0;
}

size_t strlen(const char *text)
{
	size_t length = 0;

	while (text[length])
		length++;
	return length;
}

bool option(const char *name)
{
	const char *at = boot_info.command_line, *end = at + sizeof(boot_info.command_line);
	size_t length = strlen(name);

	while (at < end && *at) {
		const char *word = at;

		while (at < end && *at && *at != ' ')
			at++;
		if ((size_t)(at - word) == length && !memcmp(word, name, length))
			return true;
		while (at < end && *at == ' ')
			at++;
	}
	return false;
}

struct line {
	char text[256];
	size_t length;
};

static void put(struct line *line, char c)
{
	if (line->length < sizeof(line->text))
		line->text[line->length++] = c;
}

/* A shift and subtract division by ten: i386 has no 64-bit division without a library. */
static u64 divide_by_ten(u64 value, unsigned int *rest)
{
	u64 quotient = 0, left = 0;
	int bit;

	for (bit = 63; bit >= 0; bit--) {
		left = (left << 1) | ((value >> bit) & 1);
		quotient <<= 1;
		if (left >= 10) {
			left -= 10;
			quotient |= 1;
		}
	}
	*rest = left;
	return quotient;
}

static void put_decimal(struct line *line, u64 value)
{
	char digits[20];
	unsigned int count = 0, rest;

	do {
		value = divide_by_ten(value, &rest);
		digits[count++] = '0' + rest;
	} while (value);
	while (count)
		put(line, digits[--count]);
}

static void put_hex(struct line *line, u64 value, int digits)
{
	while (digits--)
		put(line, "0123456789abcdef"[(value >> (digits * 4)) & 15]);
}

/* %s, %d and %u (int), %lu, %lx, %llu, %llx, %x. */
static void vformat(struct line *line, const char *format, __builtin_va_list args)
{
	for (; *format; format++) {
		int longs = 0;
		u64 value;

		if (*format != '%') {
			put(line, *format);
			continue;
		}
		while (*++format == 'l')
			longs++;
		if (*format == 's') {
			const char *text = __builtin_va_arg(args, const char *);

			while (*text)
				put(line, *text++);
			continue;
		}
		if (longs == 2)
			value = __builtin_va_arg(args, u64);
		else if (longs == 1)
			value = __builtin_va_arg(args, unsigned long);
		else
			value = __builtin_va_arg(args, unsigned int);
		if (*format == 'x')
			put_hex(line, value, longs == 2 ? 16 : longs == 1 ? 2 * sizeof(long) : 8);
		else
			put_decimal(line, value);
	}
}

void printk(const char *format, ...)
{
	struct line line = { .length = 0 };
	__builtin_va_list args;

	__builtin_va_start(args, format);
	vformat(&line, format, args);
	__builtin_va_end(args);
	console_write(line.text, line.length);
}

/* Uses no op: whatever is broken, this must come out. */
void panic(const char *format, ...)
{
	struct line line = { .length = 0 };
	__builtin_va_list args;

	guest_report.status = REPORT_PANIC;
	__builtin_va_start(args, format);
	vformat(&line, format, args);
	__builtin_va_end(args);
	console_write("guest: panic: ", 14);
	console_write(line.text, line.length);
	console_write("\n", 1);
	power_off(true);
}
