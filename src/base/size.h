/* Sizes as people write them, and hexadecimal names. */
#ifndef CIS_BASE_SIZE_H
#define CIS_BASE_SIZE_H

#include <stddef.h>
#include <stdint.h>

/**
 * cis_size_parse() - "4096", "64K", "2M", "1G", "1T" (powers of 1024) to bytes
 *
 * Return: 0, -EINVAL (not a size) or -ERANGE (over 2^64 - 1).
 */
int cis_size_parse(const char *text, uint64_t *ret_bytes);

/** cis_size_print() - bytes as "12.3 MiB" into @buf, which is returned. */
const char *cis_size_print(uint64_t bytes, char *buf, size_t len);

/** cis_hex_print() - @n bytes as 2 n lower-case digits and a NUL into @buf. */
void cis_hex_print(const uint8_t *bytes, size_t n, char *buf);

/** cis_hex_parse() - exactly 2 n digits.  Return: 0 or -EINVAL. */
int cis_hex_parse(const char *text, uint8_t *ret_bytes, size_t n);

#endif
