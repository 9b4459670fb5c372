// SPDX-License-Identifier: GPL-2.0-only
/*
 * /dev/lunatik: where the command lunatik, and anybody who may open it, gives
 * chunks of Lua to run.
 *
 * What is written up to the next read is one chunk. Reading runs it, and gives
 * what it printed and returned, up to end of file; reading on gives the error
 * message, empty if all went well, up to end of file again. Then the next
 * chunk may be written. Each open file has a process runtime of its own, so
 * globals last from chunk to chunk and no longer than the file. A chunk that
 * breaks a cap ends that runtime; the next chunk gets a new one.
 */
#include <linux/err.h>
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/mutex.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "core.h"

#define LUNATIK_CHUNK_MAX	SZ_1M

enum phase {
	PHASE_WRITE,	/* chunk grows */
	PHASE_OUTPUT,	/* output is read */
	PHASE_ERROR,	/* error is read */
};

struct control {
	struct mutex lock;		/* guards all of it */
	enum phase phase;
	struct lunatik_runtime *runtime;	/* counted; NULL: none yet, or broken */
	struct lunatik_output chunk;
	struct lunatik_output output;
	struct lunatik_output error;
	size_t position;		/* in what is being read */
};

static void drop_runtime(struct control *control)
{
	if (!control->runtime)
		return;
	lunatik_stop(control->runtime);
	/* So that it is gone when close() returns, for who looks then. */
	wait_for_completion(&control->runtime->stopped);
	lunatik_put(control->runtime);
	control->runtime = NULL;
}

static int provide_runtime(struct control *control)
{
	struct lunatik_runtime *runtime;
	struct lunatik_caps caps;
	int ret;

	if (control->runtime && READ_ONCE(control->runtime->state) == LUNATIK_ARMED)
		return 0;
	drop_runtime(control);

	lunatik_default_caps(LUNATIK_PROCESS, &caps);
	runtime = lunatik_create("lunatik", LUNATIK_PROCESS, -1, &caps, LUNATIK_SESSION);
	if (IS_ERR(runtime))
		return PTR_ERR(runtime);
	ret = lunatik_arm(runtime);
	control->runtime = runtime;
	return ret;
}

/* As an expression first, so that `1 + 1` answers. */
static int compile(lua_State *L, struct lunatik_output *chunk)
{
	lua_pushliteral(L, "return ");
	lua_pushlstring(L, chunk->text ?: "", chunk->length);
	lua_concat(L, 2);
	if (luaL_loadbufferx(L, lua_tostring(L, -1), lua_rawlen(L, -1), "=lunatik", "t") ==
	    LUA_OK)
		return LUA_OK;
	lua_settop(L, 0);
	return luaL_loadbufferx(L, chunk->text ?: "", chunk->length, "=lunatik", "t");
}

static int run_chunk(lua_State *L, void *arg)
{
	struct control *control = arg;
	int i, base, results;

	/*
	 * Until this entry is left. The callbacks of what the script leaves
	 * behind run under the runtime's lock only, while the reader of the
	 * output holds ours: they print to the log.
	 */
	lunatik_toruntime(L)->output = &control->output;
	if (compile(L, &control->chunk))
		return lua_error(L);
	base = lua_gettop(L);
	lua_call(L, 0, LUA_MULTRET);
	results = lua_gettop(L) - base + 1;
	for (i = 0; i < results; i++) {
		size_t length;
		const char *text = luaL_tolstring(L, base + i, &length);

		lunatik_output_add(&control->output, text, length);
		lunatik_output_add(&control->output, i + 1 < results ? "\t" : "\n", 1);
		lua_pop(L, 1);
	}
	return 0;
}

static void execute(struct control *control)
{
	struct lunatik_error error = {};
	const char *text;
	int ret;

	ret = provide_runtime(control);
	if (!ret)
		ret = lunatik_resume(control->runtime, run_chunk, control, &error,
				     LUNATIK_PATIENT, NULL);
	if (ret < 0) {
		text = error.text ?: lunatik_errname(ret) ?: "error";
		lunatik_output_add(&control->error, text, strlen(text));
		lunatik_output_add(&control->error, "\n", 1);
	}
	if (control->output.error == -EFBIG)
		lunatik_output_add(&control->error, "output truncated\n", 17);
	else if (control->output.error)
		lunatik_output_add(&control->error, "not enough memory\n", 18);
	kfree(error.text);
	lunatik_output_reset(&control->chunk);
}

static int control_open(struct inode *inode, struct file *file)
{
	struct control *control = NULL;

	if (!lunatik_fault())
		control = kzalloc(sizeof(*control), GFP_KERNEL);
	if (!control)
		return -ENOMEM;
	mutex_init(&control->lock);
	file->private_data = control;
	return stream_open(inode, file);
}

static int control_release(struct inode *inode, struct file *file)
{
	struct control *control = file->private_data;

	drop_runtime(control);
	lunatik_output_reset(&control->chunk);
	lunatik_output_reset(&control->output);
	lunatik_output_reset(&control->error);
	kfree(control);
	return 0;
}

static ssize_t control_write(struct file *file, const char __user *text, size_t length,
			     loff_t *offset)
{
	struct control *control = file->private_data;
	ssize_t ret = length;
	char *copy;

	if (length > LUNATIK_CHUNK_MAX)
		return -EFBIG;
	copy = lunatik_fault() ? ERR_PTR(-ENOMEM) : vmemdup_user(text, length);
	if (IS_ERR(copy))
		return PTR_ERR(copy);

	if (mutex_lock_killable(&control->lock)) {
		ret = -EINTR;
		goto free;
	}
	if (control->phase != PHASE_WRITE) {
		/* Whatever was not read is not wanted. */
		lunatik_output_reset(&control->output);
		lunatik_output_reset(&control->error);
		control->position = 0;
		control->phase = PHASE_WRITE;
	}
	lunatik_output_add(&control->chunk, copy, length);
	if (control->chunk.error) {
		ret = control->chunk.error;
		lunatik_output_reset(&control->chunk);
	}
	mutex_unlock(&control->lock);
free:
	kvfree(copy);
	return ret;
}

static ssize_t hand_out(struct control *control, struct lunatik_output *output,
			char __user *text, size_t length)
{
	lockdep_assert_held(&control->lock);

	length = min(length, output->length - control->position);
	if (!length) {
		/* A message that got lost must not look like none. */
		ssize_t ret = control->phase == PHASE_ERROR ? output->error : 0;

		lunatik_output_reset(output);
		control->position = 0;
		control->phase = control->phase == PHASE_OUTPUT ? PHASE_ERROR : PHASE_WRITE;
		return ret;
	}
	if (copy_to_user(text, output->text + control->position, length))
		return -EFAULT;
	control->position += length;
	return length;
}

static ssize_t control_read(struct file *file, char __user *text, size_t length,
			    loff_t *offset)
{
	struct control *control = file->private_data;
	ssize_t ret;

	if (!length)
		return 0;
	if (mutex_lock_killable(&control->lock))
		return -EINTR;
	if (control->phase == PHASE_WRITE) {
		execute(control);
		control->phase = PHASE_OUTPUT;
	}
	ret = hand_out(control, control->phase == PHASE_OUTPUT ? &control->output :
		       &control->error, text, length);
	mutex_unlock(&control->lock);
	return ret;
}

static const struct file_operations control_operations = {
	.owner = THIS_MODULE,
	.open = control_open,
	.release = control_release,
	.read = control_read,
	.write = control_write,
};

static struct miscdevice control_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "lunatik",
	.fops = &control_operations,
	.mode = 0600,
};

int lunatik_control_init(void)
{
	return misc_register(&control_device);
}

void lunatik_control_exit(void)
{
	misc_deregister(&control_device);
}
