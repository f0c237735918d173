#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "control/json.h"
#include "control/render.h"
#include "control/render_event.h"
#include "control/request.h"
#include "format/poison_format.h"

static void expect_string(const char *bytes, const char *expected)
{
	struct json_object *string = json_string_make(bytes, strlen(bytes));

	ck_assert_ptr_nonnull(string);
	ck_assert_str_eq(json_object_get_string(string), expected);
	json_object_put(string);
}

START_TEST(utf8_is_told_from_what_only_looks_like_it)
{
	static const char *good[] = {"",
				     "abc",
				     "\xc3\xa9",
				     "\xe2\x82\xac",
				     "\xf0\x9f\x92\xbe",
				     "\xed\x9f\xbf",
				     "\xf4\x8f\xbf\xbf"};
	static const char *bad[] = {"\xff",
				    "\x80",
				    "a\xc3",
				    "\xc0\xaf",
				    "\xc1\xbf",
				    "\xe0\x80\xaf",
				    "\xed\xa0\x80",
				    "\xf0\x80\x80\x80",
				    "\xf4\x90\x80\x80",
				    "\xf5\x80\x80\x80",
				    "\xe2\x82",
				    "\xe2"
				    "a\xac"};

	for (size_t i = 0; i < ARRAY_SIZE(good); i++)
		ck_assert_msg(json_is_utf8(good[i], strlen(good[i])), "good %zu", i);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		ck_assert_msg(!json_is_utf8(bad[i], strlen(bad[i])), "bad %zu", i);
}
END_TEST

START_TEST(malformed_parts_become_replacement_characters)
{
	expect_string("plain", "plain");
	expect_string("a\xff"
		      "b",
		      "a\xef\xbf\xbd"
		      "b");
	expect_string("\xe2\x82", "\xef\xbf\xbd");
	expect_string("\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd");
	expect_string("\xf0\x9f\x92x", "\xef\xbf\xbdx");
}
END_TEST

START_TEST(a_line_of_json_has_no_line_breaks_whatever_the_name)
{
	struct json_object *object = json_object_new_object();
	const char *line;

	ck_assert_int_eq(json_add_text(object, "name", "a\nb\r\t\"\\\x01/\x7f"), 0);
	line = json_line(object, NULL);
	ck_assert_str_eq(line, "{\"name\":\"a\\nb\\r\\t\\\"\\\\\\u0001/\x7f\"}");
	json_object_put(object);
}
END_TEST

START_TEST(paths_raw_appears_only_beside_names_that_are_not_utf8)
{
	char *clean[] = {"/a", "/b"}, *dirty[] = {"/a", "/\xff"};
	struct json_object *object = json_object_new_object();

	ck_assert_int_eq(json_add_paths(object, clean, 2), 0);
	ck_assert_str_eq(json_line(object, NULL), "{\"paths\":[\"/a\",\"/b\"]}");
	json_object_put(object);
	object = json_object_new_object();
	ck_assert_int_eq(json_add_paths(object, dirty, 2), 0);
	ck_assert_str_eq(
	    json_line(object, NULL),
	    "{\"paths\":[\"/a\",\"/\xef\xbf\xbd\"],\"paths_raw\":[\"L2E=\",\"L/8=\"]}");
	json_object_put(object);
}
END_TEST

START_TEST(base64_comes_back_for_every_length_and_byte)
{
	char bytes[256];

	for (int length = 0; length < 256; length++) {
		struct json_object *text;
		char *back;

		for (int i = 0; i < length; i++)
			bytes[i] = (char)(i + length) ? (char)(i + length) : 'x';
		text = json_base64_make(bytes, (size_t)length);
		ck_assert_int_eq(json_base64_decode(json_object_get_string(text), 256, &back), 0);
		ck_assert_mem_eq(back, bytes, (size_t)length);
		ck_assert_uint_eq(strlen(back), (size_t)length);
		free(back);
		json_object_put(text);
	}
}
END_TEST

START_TEST(base64_that_is_not_strict_is_refused)
{
	static const char *bad[] = {"a",        "ab",   "abc",  "a===", "ab=c", "=abc",
				    "ab==abcd", "ab c", "YR==", "YWF=", "AA==", "YQ==\n"};
	char *out;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		ck_assert_msg(json_base64_decode(bad[i], 100, &out) == -EINVAL, "%s", bad[i]);
	ck_assert_int_eq(json_base64_decode("YWFh", 2, &out), -ENAMETOOLONG);
}
END_TEST

START_TEST(parsing_takes_one_object_of_bounded_depth_and_nothing_else)
{
	static const char *bad[] = {
	    "",
	    "[]",
	    "1",
	    "{",
	    "{}x",
	    "{\"a\":1}{}",
	    "nul",
	    "{\"a\":\"\xff\"}",
	    "{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":1}}}}}}}}}"};
	struct json_object *object = json_parse_object("{\"a\":1}", 7);

	ck_assert_ptr_nonnull(object);
	json_object_put(object);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		ck_assert_msg(!json_parse_object(bad[i], strlen(bad[i])), "%s", bad[i]);
	ck_assert_ptr_null(json_parse_object("{}\0{}", 5));
}
END_TEST

START_TEST(numbers_out_of_range_or_of_another_type_are_refused)
{
	static const char text[] =
	    "{\"max\":18446744073709551615,\"minus\":-1,\"real\":1.5,\"text\":\"1\"}";
	struct json_object *object = json_parse_object(text, strlen(text));
	uint64_t value = 7;

	ck_assert_int_eq(json_get_u64(object, "max", &value), 1);
	ck_assert_uint_eq(value, UINT64_MAX);
	ck_assert_int_eq(json_get_u64(object, "minus", &value), -EINVAL);
	ck_assert_int_eq(json_get_u64(object, "real", &value), -EINVAL);
	ck_assert_int_eq(json_get_u64(object, "text", &value), -EINVAL);
	ck_assert_int_eq(json_get_u64(object, "none", &value), 0);
	json_object_put(object);
}
END_TEST

static void expect_round_trip(const struct command_args *args)
{
	struct json_object *object = request_make("owners", args);
	struct request request;
	struct why why;
	size_t length;
	const char *line = json_line(object, &length);

	ck_assert_int_eq(request_parse(line, length, &request, &why), 0);
	ck_assert_str_eq(request.command, "owners");
	ck_assert_uint_eq(request.args.offset, args->offset);
	ck_assert_uint_eq(request.args.length_bytes, args->length_bytes);
	ck_assert_uint_eq(request.args.ino, args->ino);
	ck_assert_uint_eq(request.args.to_ino, args->to_ino);
	ck_assert_int_eq(request.args.kind, args->kind);
	ck_assert_int_eq(request.args.all, args->all);
	ck_assert_int_eq(request.args.latent, args->latent);
	ck_assert_int_eq(request.args.has_range, args->has_range);
	ck_assert_int_eq(request.args.has_file, args->has_file);
	if (args->path)
		ck_assert_str_eq(request.args.path, args->path);
	request_fini(&request);
	json_object_put(object);
}

START_TEST(requests_come_back_as_they_were_made)
{
	expect_round_trip(&(struct command_args){.kind = -1});
	expect_round_trip(&(struct command_args){.kind = FS_OWNER_METADATA, .all = true});
	expect_round_trip(&(struct command_args){
	    .kind = -1, .has_range = true, .offset = 1ull << 55, .length_bytes = 3});
	expect_round_trip(&(struct command_args){
	    .kind = -1, .has_file = true, .path = "/a\n\xff", .latent = true});
	expect_round_trip(
	    &(struct command_args){.kind = -1, .has_file = true, .ino = 12, .to_ino = 13});
}
END_TEST

START_TEST(malformed_requests_are_refused_with_a_line)
{
	static const char *bad[] = {
	    "",
	    "[]",
	    "{}",
	    "{\"command\":1}",
	    "{\"command\":\"a name that is too long for any command there is\"}",
	    "{\"command\":\"map\",\"path_raw\":\"bm8=\"}",
	    "{\"command\":\"map\",\"path_raw\":\"?\"}",
	    "{\"command\":\"owners\",\"offset\":1}",
	    "{\"command\":\"owners\",\"offset\":-1,\"length\":1}",
	    "{\"command\":\"owners\",\"offset\":18446744073709551615,\"length\":2}",
	    "{\"command\":\"owners\",\"kind\":\"none\"}",
	    "{\"command\":\"map\",\"inumber\":0}",
	    "{\"command\":\"inject-error\",\"latent\":1}",
	};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct request request;
		struct why why = {.text = ""};

		ck_assert_msg(request_parse(bad[i], strlen(bad[i]), &request, &why) == -EINVAL,
			      "%s", bad[i]);
		ck_assert_str_ne(why.text, "");
		request_fini(&request);
	}
}
END_TEST

START_TEST(keys_of_an_owner_depend_on_its_kind)
{
	char *paths[] = {"/f"};
	struct render_names names = {.generation = 1, .paths = paths, .count = 1},
			    unknown = {.error = "damaged"};
	struct fs_owner data = {.kind = FS_OWNER_DATA,
				.device_offset = 4096,
				.length_bytes = 512,
				.ino = 5,
				.copy = -1};
	struct fs_owner meta = {.kind = FS_OWNER_METADATA,
				.device_offset = 8192,
				.length_bytes = 4096,
				.copy = 1,
				.has_peer = true,
				.peer_offset = 0,
				.tree = "rmap",
				.live = true};
	struct fs_owner nobody = {
	    .kind = FS_OWNER_FREE, .device_offset = 0, .length_bytes = 4096, .copy = -1};
	struct json_object *object = render_owner(&data, &names);

	ck_assert_str_eq(json_line(object, NULL),
			 "{\"kind\":\"data\",\"device_offset\":4096,\"len\":512,\"inumber\":5,"
			 "\"pos\":0,\"generation\":1,\"paths\":[\"/f\"]}");
	json_object_put(object);
	object = render_owner(&data, &unknown);
	ck_assert_str_eq(json_line(object, NULL),
			 "{\"kind\":\"data\",\"device_offset\":4096,\"len\":512,\"inumber\":5,"
			 "\"pos\":0,\"paths\":[],\"paths_error\":\"damaged\"}");
	json_object_put(object);
	object = render_owner(&meta, NULL);
	ck_assert_str_eq(
	    json_line(object, NULL),
	    "{\"kind\":\"metadata\",\"device_offset\":8192,\"len\":4096,\"copy\":\"replica\","
	    "\"peer_offset\":0,\"tree\":\"rmap\",\"live\":true}");
	json_object_put(object);
	object = render_owner(&nobody, NULL);
	ck_assert_str_eq(json_line(object, NULL),
			 "{\"kind\":\"free\",\"device_offset\":0,\"len\":4096}");
	json_object_put(object);
}
END_TEST

START_TEST(causes_of_a_damaged_file_are_listed_once_and_sorted)
{
	struct render_names names = {.generation = 1};
	struct json_object *object = render_damaged(5, &names);
	static const uint64_t causes[] = {9, 2, 9, 9, 4, 2};

	for (size_t i = 0; i < ARRAY_SIZE(causes); i++) {
		struct fs_damage damage = {
		    .ino = 5, .pos = i, .length_bytes = 1, .cause_id = causes[i]};

		ck_assert_int_eq(render_damage_add(object, &damage), 0);
	}
	ck_assert_int_eq(render_damage_end(object), 0);
	ck_assert_str_eq(json_line(json_object_object_get(object, "cause_ids"), NULL), "[2,4,9]");
	ck_assert_uint_eq(json_object_array_length(json_object_object_get(object, "ranges")), 6);
	ck_assert_str_eq(json_line(json_object_object_get(object, "paths"), NULL), "[]");
	json_object_put(object);
}
END_TEST

START_TEST(a_damaged_file_event_has_the_keys_of_the_contract)
{
	static const char *keys[] = {"version",       "type",    "time_ns",    "domain",   "uuid",
				     "mountpoint",    "inumber", "generation", "pos",      "len",
				     "device_offset", "paths",   "sharers",    "cause_id", "action",
				     "bytes_lost",    "error"};
	char *paths[] = {"/x"};
	uint8_t uuid[16] = {0xab};
	struct event event = {.type = EVENT_FILE_DAMAGED,
			      .time_ns = 1,
			      .cause_id = 2,
			      .device_offset = 4096,
			      .len = 512,
			      .inumber = 3,
			      .generation = 4,
			      .paths = paths,
			      .count_paths = 1,
			      .sharers = 1,
			      .action = "eio",
			      .error = EIO};
	struct json_object *object = render_event(&event, uuid, "/mnt");

	ck_assert_ptr_nonnull(object);
	ck_assert_int_eq(json_object_object_length(object), (int)ARRAY_SIZE(keys));
	for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
		ck_assert_msg(json_object_object_get_ex(object, keys[i], NULL), "%s", keys[i]);
	ck_assert_str_eq(json_object_get_string(json_object_object_get(object, "uuid")),
			 "ab000000-0000-0000-0000-000000000000");
	json_object_put(object);
}
END_TEST

START_TEST(a_metadata_lost_event_says_what_is_known_and_nothing_else)
{
	char *paths[] = {"/x", "/y"};
	uint8_t uuid[16] = {0};
	struct loss_report report = {
	    .loss = {.tree = "inodes", .advice = "help", .is_node = true, .has_inodes = true, .first_ino = 5, .last_ino = 9, .has_files = true, .count_files = 2},
	    .files = {{.ino = 5, .paths = paths, .count_paths = 2}, {.ino = 7}},
	    .count_files = 2,
	};
	struct event event = {.type = EVENT_METADATA_LOST, .time_ns = 1, .cause_id = 2, .len = 4096, .tree = "inodes", .copy = "primary", .action = "none", .report = &report};
	struct json_object *object = render_event(&event, uuid, NULL);

	ck_assert_ptr_nonnull(object);
	ck_assert_ptr_nonnull(strstr(json_line(object, NULL),
		"\"level\":0,\"first_inumber\":5,\"last_inumber\":9,\"files\":2,\"advice\":\"help\","
		"\"first_files\":[{\"inumber\":5,\"paths\":[\"/x\",\"/y\"]},{\"inumber\":7,\"paths\":[]}]"));
	json_object_put(object);
	report = (struct loss_report){.loss = {.tree = "rmap", .advice = "help", .is_node = true, .level = 1, .covers_bytes = 4096, .has_more_files = true}};
	object = render_event(&event, uuid, NULL);
	ck_assert_ptr_nonnull(strstr(json_line(object, NULL), "\"level\":1,\"covers_offset\":0,\"covers_len\":4096,\"files_more\":true,\"advice\":\"help\""));
	ck_assert_ptr_null(strstr(json_line(object, NULL), "first_files"));
	ck_assert_ptr_null(strstr(json_line(object, NULL), "inumber"));
	json_object_put(object);
	event.report = NULL;
	object = render_event(&event, uuid, NULL);
	ck_assert_ptr_null(strstr(json_line(object, NULL), "advice"));
	json_object_put(object);
}
END_TEST

START_TEST(sectors_of_an_event_cover_its_bytes)
{
	uint8_t uuid[16] = {0};
	struct event event = {.type = EVENT_MEDIA_FAILURE,
			      .device_offset = 1000,
			      .len = 100,
			      .source = FAILURE_INJECTED};
	struct json_object *object = render_event(&event, uuid, NULL);

	ck_assert_uint_eq(json_object_get_uint64(json_object_object_get(object, "sector")), 1);
	ck_assert_uint_eq(json_object_get_uint64(json_object_object_get(object, "count")), 2);
	ck_assert(!json_object_object_get_ex(object, "mountpoint", NULL));
	json_object_put(object);
	event.type = (enum event_type)99;
	ck_assert_ptr_null(render_event(&event, uuid, NULL));
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("json");
	TCase *tcase = tcase_create("json");
	SRunner *runner;
	int failed;

	tcase_add_test(tcase, utf8_is_told_from_what_only_looks_like_it);
	tcase_add_test(tcase, malformed_parts_become_replacement_characters);
	tcase_add_test(tcase, a_line_of_json_has_no_line_breaks_whatever_the_name);
	tcase_add_test(tcase, paths_raw_appears_only_beside_names_that_are_not_utf8);
	tcase_add_test(tcase, base64_comes_back_for_every_length_and_byte);
	tcase_add_test(tcase, base64_that_is_not_strict_is_refused);
	tcase_add_test(tcase, parsing_takes_one_object_of_bounded_depth_and_nothing_else);
	tcase_add_test(tcase, numbers_out_of_range_or_of_another_type_are_refused);
	tcase_add_test(tcase, requests_come_back_as_they_were_made);
	tcase_add_test(tcase, malformed_requests_are_refused_with_a_line);
	tcase_add_test(tcase, keys_of_an_owner_depend_on_its_kind);
	tcase_add_test(tcase, causes_of_a_damaged_file_are_listed_once_and_sorted);
	tcase_add_test(tcase, a_damaged_file_event_has_the_keys_of_the_contract);
	tcase_add_test(tcase, a_metadata_lost_event_says_what_is_known_and_nothing_else);
	tcase_add_test(tcase, sectors_of_an_event_cover_its_bytes);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
