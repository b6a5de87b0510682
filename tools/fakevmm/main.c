#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "fakevmm.h"

static void on_alarm(int sig)
{
	static const char text[] = "cistern-fakevmm: --timeout is over\n";

	if (write(STDERR_FILENO, text, sizeof(text) - 1) < 0)
		_exit(1);
	_exit(1); /* threads may be stuck in page faults, which only the end of the process resolves */
}

static void wait_line(const char *point)
{
	int c;

	printf("at %s\n", point);
	fflush(stdout);
	do {
		c = getchar();
	} while (c != '\n' && c != EOF);
	if (c == EOF)
		_exit(1); /* whoever steps us is gone */
}

void reached(struct vm *vm, const char *point)
{
	const struct options *o = vm->opt;

	if (o->exit_after && !strcmp(o->exit_after, point))
		_exit(0);
	while (o->hang_after && !strcmp(o->hang_after, point))
		pause();
	if (o->step)
		wait_line(point);
}

static int play(struct vm *vm, struct cis_error *err)
{
	int r = memory_create(vm, err);

	if (!r)
		r = touch_init(vm, err);
	if (!r)
		r = order_create(vm, err);
	if (r)
		return r;
	reached(vm, "memory");
	r = hello_send(vm, err);
	if (r || vm->opt->bad)
		return r ? r : hello_wait_refused(vm, err);
	if (vm->opt->client)
		r = hello_wait_answer(vm, err);
	if (r)
		return r;
	vm->start_ns = cis_now_ns(NULL);
	r = actions_run(vm, err);
	if (!r)
		reached(vm, "actions");
	return r;
}

int main(int argc, char **argv)
{
	static struct vm vm;
	struct options o;
	struct cis_error err = { 0 };
	int r = options_parse(argc, argv, &o);

	if (r)
		return r - 1;
	vm.opt = &o;
	if (o.timeout_s) {
		signal(SIGALRM, on_alarm);
		alarm(o.timeout_s);
	}
	r = play(&vm, &err);
	report_print(&vm, r ? err.text : NULL);
	_exit(r || !report_is_good(&vm) ? 1 : 0);
}
