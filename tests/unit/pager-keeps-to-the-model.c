/*
 * Millions of random interleavings of touches, REMOVEs, reads, fills and failures: no thread ever sees a wrong byte, none waits
 * for ever, and the page words say what is mapped; also when the pager is killed anywhere, and another one takes over.
 *
 * CIS_MODEL_SEED=N runs one world again; CIS_MODEL_STEPS=N sets how many steps in all.
 */
#include "check.h"
#include "pager-model.h"

#define WORLD_STEPS 800u /* by then hardly a page is absent */

static char dir[] = "/dev/shm/cistern-model-XXXXXX"; /* images are synced, which a disk takes its time for */

static uint64_t number(const char *name, uint64_t otherwise)
{
	const char *text = getenv(name);

	return text ? strtoull(text, NULL, 0) : otherwise;
}

static uint64_t crashes, handovers, evictions, returns, far_returns, prefetched;

/* Of LeakSanitizer, where it is there. */
void __lsan_disable(void) __attribute__((weak));
void __lsan_enable(void) __attribute__((weak));

/* What a pager holds that is killed in the middle of a step is nobody's any more: the kernel would free it with the process. */
static void may_leak(const struct world *w, bool begins)
{
	void (*what)(void) = begins ? __lsan_disable : __lsan_enable;

	if (w->mortal && what)
		what();
}

static uint64_t run_world(uint64_t seed)
{
	struct world w;
	char path[64];

	world_open(&w, seed, dir);
	may_leak(&w, true);
	for (unsigned i = 0; i < WORLD_STEPS && world_step(&w); i++)
		;
	if (!w.wrong)
		world_settle(&w);
	uint64_t touches = w.touches;

	crashes += w.crashes;
	handovers += w.handovers;

	world_close(&w);
	may_leak(&w, false);
	evictions += w.evictions;
	returns += w.returns;
	far_returns += w.far_returns;
	prefetched += w.prefetched;
	if (w.wrong)
		fail_msg("CIS_MODEL_SEED=%llu: %s (page %llu)", (unsigned long long)seed, w.wrong,
			 (unsigned long long)w.wrong_page);
	snprintf(path, sizeof(path), "%s/image", dir);
	unlink(path);
	return touches;
}

static void interleavings_of_all_kinds(void **state)
{
	uint64_t seed = number("CIS_MODEL_SEED", 0), steps = number("CIS_MODEL_STEPS", 2000000), touches = 0;

	(void)state;
	assert_non_null(mkdtemp(dir));
	if (seed)
		touches = run_world(seed);
	else
		for (uint64_t s = 1; s <= steps / WORLD_STEPS; s++)
			touches += run_world(s);
	rmdir(dir);
	print_message("%llu touches of pages checked, %llu crashes, %llu hand-overs, %llu pages reclaimed, %llu back, %llu from the store, %llu prefetched\n",
		      (unsigned long long)touches, (unsigned long long)crashes, (unsigned long long)handovers,
		      (unsigned long long)evictions, (unsigned long long)returns, (unsigned long long)far_returns,
		      (unsigned long long)prefetched);
	assert_true(touches > 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(interleavings_of_all_kinds) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
