#include "client/api.h"

#include <curl/curl.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"

#define ANSWER_MAX (64u << 20) /* thousands of guests fit; an endless answer does not */

struct cis_api {
	CURL *curl;
	char *socket;
	char code[32];
	char reason[CURL_ERROR_SIZE];
	char *answer;
	size_t len;
};

static const struct {
	const char *code;
	int error;
} errors[] = {
	{ "bad_request", EINVAL },     { "no_permission", EACCES },  { "not_found", ENOENT },
	{ "bad_method", EINVAL },      { "exists", EEXIST },	     { "wrong_state", EBUSY },
	{ "too_large", E2BIG },	       { "image_refused", EBADMSG }, { "internal", EIO },
	{ "unsupported", EOPNOTSUPP }, { "busy", EAGAIN },	     { "timeout", ETIMEDOUT },
	{ "no_room", ENOSPC },
};

static int error_of(const char *code)
{
	for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++)
		if (!strcmp(errors[i].code, code))
			return errors[i].error;
	return EIO;
}

/* A curl write callback: anything but @bytes makes curl give up. */
static size_t take_answer(char *data, size_t one, size_t bytes, void *ctx)
{
	struct cis_api *api = ctx;
	char *grown;

	if (bytes > ANSWER_MAX - api->len)
		return 0;
	grown = realloc(api->answer, api->len + bytes + 1);
	if (!grown)
		return 0;
	memcpy(grown + api->len, data, bytes);
	api->answer = grown;
	api->len += bytes;
	api->answer[api->len] = 0;
	return bytes;
}

int cis_api_open(const char *socket, struct cis_api **ret, struct cis_error *err)
{
	struct cis_api *api = calloc(1, sizeof(*api));

	if (api) {
		api->curl = curl_easy_init();
		api->socket = strdup(socket);
	}
	if (!api || !api->curl || !api->socket) {
		cis_api_close(api);
		return cis_fail(err, ENOMEM, "%s: no memory", socket);
	}
	*ret = api;
	return 0;
}

void cis_api_close(struct cis_api *api)
{
	if (!api)
		return;
	curl_easy_cleanup(api->curl);
	free(api->socket);
	free(api->answer);
	free(api);
}

const char *cis_api_code(const struct cis_api *api)
{
	return api->code;
}

/* Why nothing could be connected: curl does not say it as an errno. */
static int refuse_connect(const struct cis_api *api, struct cis_error *err)
{
	struct stat st;

	if (stat(api->socket, &st) && errno == ENOENT)
		return cis_fail(err, ENOENT, "%s: no such socket: is cisternd running?", api->socket);
	if (access(api->socket, W_OK) && errno == EACCES)
		return cis_fail(err, EACCES, "%s: permission denied", api->socket);
	return cis_fail(err, ECONNREFUSED, "%s: nobody answers: is cisternd running?", api->socket);
}

/* Fills api->answer; *ret_status is the HTTP status. */
static int transfer(struct cis_api *api, const char *method, const char *path, const char *body,
		    long *ret_status, struct cis_error *err)
{
	struct curl_slist *headers = curl_slist_append(NULL, "Content-Type: application/json");
	_cleanup_free_ char *url = malloc(strlen(path) + 16);
	CURLcode rc = CURLE_OUT_OF_MEMORY;

	free(api->answer);
	api->answer = NULL;
	api->len = 0;
	api->code[0] = api->reason[0] = 0;
	if (url && headers) {
		strcpy(stpcpy(url, "http://cistern"), path);
		curl_easy_reset(api->curl);
		curl_easy_setopt(api->curl, CURLOPT_UNIX_SOCKET_PATH, api->socket);
		curl_easy_setopt(api->curl, CURLOPT_URL, url);
		curl_easy_setopt(api->curl, CURLOPT_CUSTOMREQUEST, method);
		curl_easy_setopt(api->curl, CURLOPT_NOSIGNAL, 1L);
		curl_easy_setopt(api->curl, CURLOPT_PROXY, "");
		curl_easy_setopt(api->curl, CURLOPT_ERRORBUFFER, api->reason);
		curl_easy_setopt(api->curl, CURLOPT_HTTPHEADER, headers);
		curl_easy_setopt(api->curl, CURLOPT_WRITEFUNCTION, take_answer);
		curl_easy_setopt(api->curl, CURLOPT_WRITEDATA, api);
		if (body)
			curl_easy_setopt(api->curl, CURLOPT_POSTFIELDS, body);
		rc = curl_easy_perform(api->curl);
		curl_easy_getinfo(api->curl, CURLINFO_RESPONSE_CODE, ret_status);
	}
	curl_slist_free_all(headers);
	if (rc == CURLE_COULDNT_CONNECT)
		return refuse_connect(api, err);
	if (rc == CURLE_OUT_OF_MEMORY)
		return cis_fail(err, ENOMEM, "%s: no memory", api->socket);
	if (rc == CURLE_GOT_NOTHING || rc == CURLE_RECV_ERROR || rc == CURLE_SEND_ERROR || rc == CURLE_PARTIAL_FILE)
		return cis_fail(err, ECONNRESET, "%s: the daemon hung up before it answered", api->socket);
	if (rc)
		return cis_fail(err, EPROTO, "%s: %s", api->socket,
				*api->reason ? api->reason : curl_easy_strerror(rc));
	return 0;
}

static int fail_by_answer(struct cis_api *api, long status, struct cis_error *err)
{
	json_t *obj = json_loadb(api->answer ? api->answer : "", api->len, 0, NULL);
	const char *code, *message;
	int r;

	if (json_unpack(obj, "{s:{s:s,s:s}}", "error", "code", &code, "message", &message)) {
		r = cis_fail(err, EPROTO, "%s: status %ld without an error object", api->socket, status);
	} else {
		strncpy(api->code, code, sizeof(api->code) - 1);
		r = cis_fail(err, error_of(code), "%s", message);
	}
	json_decref(obj);
	return r;
}

int cis_api_call(struct cis_api *api, const char *method, const char *path, const json_t *body, json_t **ret,
		 struct cis_error *err)
{
	_cleanup_free_ char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;
	json_error_t where;
	json_t *obj = NULL;
	long status = 0;
	int r;

	if (body && !text)
		return cis_fail(err, ENOMEM, "%s: no memory", api->socket);
	r = transfer(api, method, path, text, &status, err);
	if (r)
		return r;
	if (status < 200 || status > 299)
		return fail_by_answer(api, status, err);
	if (api->len) {
		obj = json_loadb(api->answer, api->len, 0, &where);
		if (!json_is_object(obj)) {
			json_decref(obj);
			return cis_fail(err, EPROTO, "%s: the answer is not a JSON object", api->socket);
		}
	}
	if (ret)
		*ret = obj;
	else
		json_decref(obj);
	return 0;
}

char *cis_api_escape(const char *text)
{
	char *curls = curl_easy_escape(NULL, text, 0), *copy = curls ? strdup(curls) : NULL;

	curl_free(curls);
	return copy;
}
