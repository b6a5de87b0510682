/* Servers that speak Valkey's protocol, but say whatever a test wants them to say. */
#ifndef TESTS_UNIT_VALKEY_FAKE_H
#define TESTS_UNIT_VALKEY_FAKE_H

#include "fake.h"

#define FAKE_ARGS 6

/** struct fake_command - what it was told; a long argument is cut */
struct fake_command {
	int argc;
	char arg[FAKE_ARGS][128];
	bool asked; /* ASKING came before */
};

static inline bool fake_info(int fd, const char *more)
{
	char body[400], text[500];

	snprintf(body, sizeof(body), "# Server\r\nrole:master\r\nmaxmemory:0\r\nmaxmemory_policy:noeviction\r\naof_enabled:0\r\n%s\r\n", more);
	snprintf(text, sizeof(text), "$%zu\r\n%s\r\n", strlen(body), body);
	return fake_say(fd, text);
}

static inline bool fake_arg(FILE *in, char *ret, size_t max)
{
	char line[64];
	long len;

	if (!fgets(line, sizeof(line), in) || *line != '$')
		return false;
	len = strtol(line + 1, NULL, 10) + 2;
	for (long i = 0; i < len; i++) {
		int c = getc(in);

		if (c == EOF)
			return false;
		if (i < len - 2 && (size_t)i < max - 1)
			*ret++ = (char)c;
	}
	*ret = 0;
	return true;
}

static inline bool fake_read(FILE *in, struct fake_command *c)
{
	char line[64], other[8];

	if (!fgets(line, sizeof(line), in) || *line != '*')
		return false;
	c->argc = (int)strtol(line + 1, NULL, 10);
	for (int i = 0; i < c->argc; i++)
		if (!fake_arg(in, i < FAKE_ARGS ? c->arg[i] : other, i < FAKE_ARGS ? sizeof(c->arg[i]) : sizeof(other)))
			return false;
	return true;
}

static inline void fake_valkey(struct fake *f, FILE *in, int fd)
{
	struct fake_command c = { 0 };
	bool on = true;

	while (on && fake_read(in, &c)) {
		if (!strcmp(c.arg[0], "ASKING")) {
			on = fake_say(fd, "+OK\r\n");
			c.asked = true;
		} else {
			on = f->answer(f, fd, &c);
			c.asked = false;
		}
	}
}

#endif
