/* SPDX-License-Identifier: Apache-2.0 */
#include "net/bundle.h"

#include <curl/curl.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <zip.h>

#include "net/tls_priv.h"

#define ASK_SECONDS 10L
#define CONNECT_SECONDS 5L

/* ---- the zip file */

static int unpack(zip_t *zip, const char *path, const char *name, struct span *ret, struct error *error)
{
	uint8_t *data = NULL;
	zip_file_t *file;
	zip_stat_t st;
	zip_int64_t n;

	zip_stat_init(&st);
	if (zip_stat(zip, name, 0, &st) < 0 || !(st.valid & ZIP_STAT_SIZE))
		return error_set(error, -ENOENT, "the bundle '%s' has no %s: is it a secure-connect bundle?",
				 path, name);
	if (st.size == 0 || st.size > BUNDLE_ENTRY_MAX)
		return error_set(error, -EFBIG, "%s in the bundle '%s' has %llu bytes; 1 to %u are expected",
				 name, path, (unsigned long long)st.size, BUNDLE_ENTRY_MAX);
	data = malloc(st.size);
	if (!data)
		return error_set(error, -ENOMEM, "out of memory");
	file = zip_fopen(zip, name, 0);
	n = file ? zip_fread(file, data, st.size) : -1;
	/* The checksum is compared at the end of the file. */
	if (n == (zip_int64_t)st.size && zip_fread(file, &(char){0}, 1) != 0)
		n = -1;
	if (n != (zip_int64_t)st.size) {
		error_set(error, -EINVAL, "%s in the bundle '%s' cannot be unpacked: %s", name, path,
			  file ? zip_file_strerror(file) : zip_strerror(zip));
		if (file)
			zip_fclose(file);
		explicit_bzero(data, st.size);
		free(data);
		return -EINVAL;
	}
	zip_fclose(file);
	*ret = span_of(data, st.size);
	return 0;
}

static int unpack_all(zip_t *zip, const char *path, struct bundle *b, struct error *error)
{
	struct span config = {0};
	struct error why;
	int rc = unpack(zip, path, "config.json", &config, error);

	if (rc == 0) {
		rc = bundle_config_parse(config, &b->config, &why);
		if (rc < 0)
			error_set(error, rc, "the bundle '%s': %s", path, why.text);
	}
	if (rc == 0)
		rc = unpack(zip, path, "ca.crt", &b->ca, error);
	if (rc == 0)
		rc = unpack(zip, path, "cert", &b->cert, error);
	if (rc == 0)
		rc = unpack(zip, path, "key", &b->key, error);
	if (config.data)
		explicit_bzero((void *)config.data, config.size);
	free((void *)config.data);
	return rc;
}

int bundle_read(const char *path, struct bundle *ret, struct tls_stamp *seen, struct error *error)
{
	struct tls_bytes bytes;
	struct bundle b = {0};
	zip_source_t *source;
	zip_t *zip = NULL;
	zip_error_t why;
	int rc = tls_bytes_read(path, &bytes, error);

	if (seen)
		*seen = bytes.stamp;
	if (rc < 0)
		return rc;
	zip_error_init(&why);
	source = zip_source_buffer_create(bytes.data, bytes.size, 0, &why);
	if (source)
		zip = zip_open_from_source(source, ZIP_RDONLY, &why);
	if (!zip) {
		rc = error_set(error, -EINVAL, "the bundle '%s' is not a zip file: %s", path,
			       zip_error_strerror(&why));
		zip_source_free(source);
	} else {
		rc = unpack_all(zip, path, &b, error);
		zip_discard(zip);
	}
	zip_error_fini(&why);
	tls_bytes_done(&bytes);
	if (rc == 0)
		*ret = b;
	else
		bundle_done(&b);
	return rc;
}

void bundle_done(struct bundle *b)
{
	struct span *parts[] = {&b->ca, &b->cert, &b->key};

	for (unsigned i = 0; i < 3; i++) {
		if (parts[i]->data)
			explicit_bzero((void *)parts[i]->data, parts[i]->size);
		free((void *)parts[i]->data);
		*parts[i] = (struct span){0};
	}
}

/* ---- the metadata service */

struct answer {
	uint8_t *data;
	size_t size;
	bool too_long;
};

static size_t on_data(char *data, size_t one, size_t count, void *context)
{
	struct answer *a = context;
	size_t size = one * count;
	uint8_t *bigger;

	if (a->size + size > BUNDLE_JSON_MAX) {
		a->too_long = true;
		return 0;
	}
	bigger = realloc(a->data, a->size + size + 1);
	if (!bigger)
		return 0;
	memcpy(bigger + a->size, data, size);
	a->data = bigger;
	a->size += size;
	return size;
}

/* So that our own kernel hooks leave the connection alone; without the privilege it goes without, as sessions
 * do. */
static int on_socket(void *context, curl_socket_t fd, curlsocktype purpose)
{
	(void)purpose;
	setsockopt(fd, SOL_SOCKET, SO_MARK, context, sizeof(uint32_t));
	return CURL_SOCKOPT_OK;
}

static void set_blob(CURL *curl, CURLoption option, struct span s)
{
	struct curl_blob blob = {.data = (void *)s.data, .len = s.size, .flags = CURL_BLOB_NOCOPY};

	curl_easy_setopt(curl, option, &blob);
}

static pthread_once_t curl_once = PTHREAD_ONCE_INIT; /* libcurl wants that once for a process */

static void curl_begin(void)
{
	curl_global_init(CURL_GLOBAL_DEFAULT);
}

static int perform(CURL *curl, const char *url, const struct answer *a, struct error *error)
{
	char detail[CURL_ERROR_SIZE] = "";
	long status = 0;
	CURLcode code;

	curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, detail);
	code = curl_easy_perform(curl);
	curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
	curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, NULL);
	if (a->too_long)
		return error_set(error, -EMSGSIZE, "the metadata service %s answers with more than 256 KiB",
				 url);
	if (code == CURLE_PEER_FAILED_VERIFICATION || code == CURLE_SSL_CERTPROBLEM)
		return error_set(
		    error, -EKEYREJECTED,
		    "the metadata service %s: %s; is the bundle of this database, and still valid?", url,
		    *detail ? detail : curl_easy_strerror(code));
	if (code != CURLE_OK)
		return error_set(error, code == CURLE_OPERATION_TIMEDOUT ? -ETIMEDOUT : -EHOSTUNREACH,
				 "the metadata service %s: %s", url,
				 *detail ? detail : curl_easy_strerror(code));
	if (status != 200)
		return error_set(
		    error, -EREMOTEIO, "the metadata service %s answers with HTTP status %ld%s", url, status,
		    status >= 500 ? ": a database that is hibernating or being resumed answers like that"
				  : "");
	return 0;
}

int bundle_ask(const struct bundle *b, bool any_name, uint32_t mark, struct bundle_contact *ret,
	       struct error *error)
{
	struct answer a = {0};
	struct error why;
	char url[BUNDLE_HOST_MAX + 32];
	CURL *curl;
	int rc;

	pthread_once(&curl_once, curl_begin);
	curl = curl_easy_init();
	if (!curl)
		return error_set(error, -ENOMEM, "out of memory");
	snprintf(url, sizeof(url),
		 strchr(b->config.host, ':') ? "https://[%s]:%u/metadata" : "https://%s:%u/metadata",
		 b->config.host, b->config.port);
	curl_easy_setopt(curl, CURLOPT_URL, url);
	curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "https");
	curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 0L);
	curl_easy_setopt(curl, CURLOPT_PROXY, ""); /* connections to the nodes take none either */
	curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(curl, CURLOPT_TIMEOUT, ASK_SECONDS);
	curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, CONNECT_SECONDS);
	curl_easy_setopt(curl, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
	curl_easy_setopt(curl, CURLOPT_SSL_VERIFYPEER, 1L);
	curl_easy_setopt(curl, CURLOPT_SSL_VERIFYHOST, any_name ? 0L : 2L);
	set_blob(curl, CURLOPT_CAINFO_BLOB, b->ca);
	set_blob(curl, CURLOPT_SSLCERT_BLOB, b->cert);
	set_blob(curl, CURLOPT_SSLKEY_BLOB, b->key);
	curl_easy_setopt(curl, CURLOPT_USERAGENT, "cqlferry/" CQLFERRY_VERSION);
	curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_data);
	curl_easy_setopt(curl, CURLOPT_WRITEDATA, &a);
	if (mark) {
		curl_easy_setopt(curl, CURLOPT_SOCKOPTFUNCTION, on_socket);
		curl_easy_setopt(curl, CURLOPT_SOCKOPTDATA, &mark);
	}
	rc = perform(curl, url, &a, error);
	if (rc == 0) {
		rc = bundle_contact_parse(span_of(a.data, a.size), ret, &why);
		if (rc < 0)
			error_set(error, rc, "%s: %s", url, why.text);
	}
	curl_easy_cleanup(curl);
	free(a.data);
	return rc;
}
