/* What a server says: read by hiredis, and what we read of it gives numbers and names within their bounds. */
#include <errno.h>
#include <stdint.h>
#include <string.h>

#include "check.h"
#include "store/valkey/say.h"

static void name_fits(const char *name)
{
	FUZZ_CHECK(strlen(name) <= CIS_HOST_NAME_MAX && !strpbrk(name, " /,@\n"));
}

static void range(void *ctx, unsigned first, unsigned last, const char *name, uint16_t port)
{
	FUZZ_CHECK(last < VK_SLOTS && (first <= last || (first == 1 && last == 0)) && port);
	name_fits(name);
	++*(unsigned *)ctx;
}

static void use(const redisReply *reply)
{
	struct vk_redirect to;
	struct vk_info info;
	unsigned nr = 0;
	int rc;

	if (reply->type == REDIS_REPLY_ARRAY) {
		rc = vk_ranges(reply, NULL, NULL);
		FUZZ_CHECK(vk_ranges(reply, range, &nr) == rc && (!rc || !nr));
	} else if (reply->type == REDIS_REPLY_STRING) {
		rc = vk_info(reply->str, &info);
		FUZZ_CHECK(!rc || rc == -EPROTO);
	} else if (reply->type == REDIS_REPLY_ERROR && vk_error(reply->str, (size_t)reply->len, &to) <= VK_ERR_ASK) {
		FUZZ_CHECK(to.slot < VK_SLOTS && to.port);
		name_fits(to.name);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	redisReader *reader = redisReaderCreate();
	struct vk_bound bound;
	void *reply;

	FUZZ_CHECK(reader);
	vk_bound(&bound, reader);
	FUZZ_CHECK(vk_slot((const char *)data, len) < VK_SLOTS);
	redisReaderFeed(reader, (const char *)data, len);
	while (redisReaderGetReply(reader, &reply) == REDIS_OK && reply) {
		use(reply);
		freeReplyObject(reply);
	}
	redisReaderFree(reader);
	return 0;
}
