// SPDX-License-Identifier: GPL-2.0-only
/*
 * device: character devices whose operations are functions of a script.
 *
 * A file that is held open keeps the hook, not the script: when that is gone
 * its operations fail with ENODEV. One range of numbers and one cdev serve all
 * devices; open() finds the device of a minor in a table.
 */
#include <linux/cdev.h>
#include <linux/ctype.h>
#include <linux/device.h>
#include <linux/fs.h>
#include <linux/module.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/xarray.h>

#include "lunatik.h"

#define DEVICE_MINORS		256
#define DEVICE_NAME_MAX		64
#define DEVICE_TRANSFER_MAX	SZ_1M	/* bytes of one read or write */

struct luadevice {
	struct lunatik_hook hook;
	char name[DEVICE_NAME_MAX];
	umode_t mode;
	int driver;		/* reference to the script's table; by the runtime's lock */
	unsigned int files;	/* that use it; by the runtime's lock */
	bool stopped;		/* by stop(), in any runtime; never cleared */
	u32 minor;
	struct device *device;	/* until the hook is stopped */
};

static dev_t first;
static struct cdev cdev;

/* minor -> struct luadevice; the xarray's lock guards what open() finds */
static DEFINE_XARRAY_ALLOC(devices);
static DEFINE_MUTEX(names_lock);	/* one device of a name at a time */

static struct luadevice *todevice(struct lunatik_hook *hook)
{
	return container_of(hook, struct luadevice, hook);
}

/* ---- operations ---- */

struct operation {
	struct luadevice *device;
	const char *name;
	bool optional;
	bool counted;		/* this file, in device->files */
	char *buffer;		/* what is written; what was read: lunatik_free() */
	size_t length;
	loff_t offset;
	ssize_t result;
};

/* Push the table; false if it is gone. */
static bool push_driver(lua_State *L, struct operation *operation)
{
	if (operation->device->driver == LUA_NOREF) {
		operation->result = -ENODEV;
		return false;
	}
	lunatik_pushref(L, operation->device->driver);
	return true;
}

/* Put its function below the table on top; false if there is no such function. */
static bool find_callback(lua_State *L, struct operation *operation)
{
	if (lua_getfield(L, -1, operation->name) == LUA_TNIL) {
		operation->result = operation->optional ? 0 : -ENXIO;
		return false;
	}
	lua_insert(L, -2);
	return true;
}

static bool push_callback(lua_State *L, struct operation *operation)
{
	return push_driver(L, operation) && find_callback(L, operation);
}

static void driver_drop(lua_State *L, struct luadevice *device)
{
	lunatik_unref(L, device->driver);
	device->driver = LUA_NOREF;
}

static void file_forget(lua_State *L, struct luadevice *device)
{
	if (!--device->files && READ_ONCE(device->stopped))
		driver_drop(L, device);
}

static int do_open(lua_State *L, void *arg)
{
	struct operation *operation = arg;
	bool found = push_callback(L, operation);

	if (operation->result)
		return 0;
	/* First: it may stop the device, and the file is to work all the same. */
	operation->device->files++;
	operation->counted = true;
	if (found)
		lua_call(L, 1, 0);
	return 0;
}

/* After an open() that failed. */
static int do_forget(lua_State *L, void *arg)
{
	struct operation *operation = arg;

	file_forget(L, operation->device);
	return 0;
}

/* If the runtime is busy for too long the file counts as open until its end. */
static int do_release(lua_State *L, void *arg)
{
	struct operation *operation = arg;
	bool there = push_driver(L, operation);

	/* First: to look for the function may be an error. */
	file_forget(L, operation->device);
	if (there && find_callback(L, operation))
		lua_call(L, 1, 0);
	return 0;
}

static loff_t offset_after(lua_State *L, int index, loff_t offset, size_t length)
{
	return lua_isnil(L, index) ? offset + length : luaL_checkinteger(L, index);
}

static int do_read(lua_State *L, void *arg)
{
	struct operation *operation = arg;
	const char *text;
	size_t length;

	if (!push_callback(L, operation))
		return 0;
	lua_pushinteger(L, operation->length);
	lua_pushinteger(L, operation->offset);
	lua_call(L, 3, 2);

	text = luaL_optlstring(L, -2, "", &length);
	length = min(length, operation->length);	/* more than was asked for */
	operation->offset = offset_after(L, -1, operation->offset, length);
	if (length) {
		operation->buffer = lunatik_alloc(L, length);
		memcpy(operation->buffer, text, length);
	}
	operation->result = length;
	return 0;
}

static int do_write(lua_State *L, void *arg)
{
	struct operation *operation = arg;
	lua_Integer length;

	if (!push_callback(L, operation))
		return 0;
	lua_pushlstring(L, operation->buffer, operation->length);
	lua_pushinteger(L, operation->offset);
	lua_call(L, 3, 2);

	length = luaL_optinteger(L, -2, operation->length);
	length = clamp_t(lua_Integer, length, 0, operation->length);
	operation->offset = offset_after(L, -1, operation->offset, length);
	operation->result = length;
	return 0;
}

static ssize_t perform(struct operation *operation, lunatik_handler handler)
{
	int ret = lunatik_run(operation->device->hook.runtime, handler, operation);

	switch (ret) {
	case 0:
		return operation->result;
	case -ESHUTDOWN:
	case -EDQUOT:
		return -ENODEV;
	case -ENOMEM:
	case -EBUSY:
	case -EINTR:
	case -EDEADLK:
		return ret;
	default:
		return -EIO;
	}
}

/*
 * File operations: process context, nothing held; the file owns a reference to
 * the hook. A stopped runtime refuses the entry, and it is ENODEV.
 */

static int device_open(struct inode *inode, struct file *file)
{
	struct operation operation = { .name = "open", .optional = true };
	struct luadevice *device;
	int ret;

	xa_lock(&devices);
	device = xa_load(&devices, iminor(inode) - MINOR(first));
	if (device)
		lunatik_hook_get(&device->hook);
	xa_unlock(&devices);
	if (!device)
		return -ENODEV;

	operation.device = device;
	ret = perform(&operation, do_open);
	if (ret) {
		if (operation.counted)
			perform(&operation, do_forget);
		lunatik_hook_put(&device->hook);
		return ret;
	}
	file->private_data = device;
	return 0;
}

static int device_release(struct inode *inode, struct file *file)
{
	struct luadevice *device = file->private_data;
	struct operation operation = {
		.device = device, .name = "release", .optional = true,
	};

	perform(&operation, do_release);
	lunatik_hook_put(&device->hook);
	return 0;
}

static ssize_t device_read(struct file *file, char __user *buffer, size_t length,
			   loff_t *offset)
{
	struct operation operation = {
		.device = file->private_data,
		.name = "read",
		.length = min_t(size_t, length, DEVICE_TRANSFER_MAX),
		.offset = *offset,
	};
	ssize_t ret = perform(&operation, do_read);

	/* Outside of the runtime: a page that is slow to come holds up nobody else. */
	if (ret > 0 && copy_to_user(buffer, operation.buffer, ret))
		ret = -EFAULT;
	lunatik_free(operation.buffer);
	if (ret >= 0)
		*offset = operation.offset;
	return ret;
}

static ssize_t device_write(struct file *file, const char __user *buffer, size_t length,
			    loff_t *offset)
{
	struct operation operation = {
		.device = file->private_data,
		.name = "write",
		.length = min_t(size_t, length, DEVICE_TRANSFER_MAX),
		.offset = *offset,
	};
	ssize_t ret;

	operation.buffer = lunatik_fault() ? ERR_PTR(-ENOMEM) :
			   vmemdup_user(buffer, operation.length);
	if (IS_ERR(operation.buffer))
		return PTR_ERR(operation.buffer);
	ret = perform(&operation, do_write);
	kvfree(operation.buffer);
	if (ret >= 0)
		*offset = operation.offset;
	return ret;
}

static const struct file_operations device_operations = {
	.owner = THIS_MODULE,
	.open = device_open,
	.release = device_release,
	.read = device_read,
	.write = device_write,
	.llseek = default_llseek,
};

/* ---- devices ---- */

/* 6.2 made the device const; either type is given here. */
static __maybe_unused char *devnode_const(const struct device *dev, umode_t *mode)
{
	const struct luadevice *device = dev_get_drvdata(dev);

	if (mode && device)
		*mode = device->mode;
	return NULL;
}

static __maybe_unused char *devnode(struct device *dev, umode_t *mode)
{
	return devnode_const(dev, mode);
}

#define DEVNODE_IS_CONST \
	__same_type(((struct class *)0)->devnode, &devnode_const)

static struct class device_class = {
	.name = "lunatik",
	.devnode = __builtin_choose_expr(DEVNODE_IS_CONST, devnode_const, devnode),
};

/* Open files do not matter: each operation asks the runtime itself. */
static void device_stop(struct lunatik_hook *hook)
{
	struct luadevice *device = todevice(hook);

	mutex_lock(&names_lock);
	xa_erase(&devices, device->minor);
	device_destroy(&device_class, first + device->minor);
	mutex_unlock(&names_lock);
}

static void device_free(struct lunatik_hook *hook)
{
	lunatik_free(todevice(hook));
}

static const struct lunatik_hook_ops device_hook_ops = {
	.name = "device",
	.stop = device_stop,
	.free = device_free,
	.owner = THIS_MODULE,
};

static int device_register_named(struct luadevice *device)
{
	struct luadevice *other;
	unsigned long index;
	int ret = 0;

	mutex_lock(&names_lock);
	xa_for_each(&devices, index, other)
		if (!strcmp(other->name, device->name))
			ret = -EEXIST;
	if (!ret)
		ret = xa_alloc(&devices, &device->minor, device,
			       XA_LIMIT(0, DEVICE_MINORS - 1), GFP_KERNEL);
	if (ret)
		goto unlock;

	device->device = device_create(&device_class, NULL, first + device->minor, device,
				       "%s", device->name);
	if (IS_ERR(device->device)) {
		ret = PTR_ERR(device->device);
		xa_erase(&devices, device->minor);
	}
unlock:
	mutex_unlock(&names_lock);
	return ret;
}

/* ---- the script's side ---- */

struct handle {
	struct luadevice *device;	/* its hook is counted */
};

static void handle_release(void *private)
{
	struct handle *handle = private;

	if (handle->device)
		lunatik_hook_put(&handle->device->hook);
}

/*
 * Files that are open go on, and the last one drops the reference. If there are
 * none that is done here; not in another runtime, which the handle may have got
 * to: nothing of the script's can be touched from there.
 */
static void handle_stop(lua_State *L, void *private)
{
	struct luadevice *device = ((struct handle *)private)->device;

	WRITE_ONCE(device->stopped, true);
	lunatik_hook_end(&device->hook);
	if (lunatik_toruntime(L) == device->hook.runtime && !device->files)
		driver_drop(L, device);
}

static const struct lunatik_class handle_class = {
	.name = "device",
	.flags = LUNATIK_SLEEP,
	.release = handle_release,
	.stop = handle_stop,
	.owner = THIS_MODULE,
};

static void take_name(lua_State *L, struct luadevice *device)
{
	size_t length, i;
	const char *name = lunatik_fieldstring(L, 1, "name", &length);

	if (!length || length >= sizeof(device->name) || name[0] == '.' ||
	    strlen(name) != length)
		luaL_error(L, "bad field 'name' (invalid device name)");
	for (i = 0; i < length; i++)
		if (!isalnum(name[i]) && !strchr("._-", name[i]))
			luaL_error(L, "bad field 'name' (invalid device name)");
	memcpy(device->name, name, length);
}

static void check_callback(lua_State *L, const char *name)
{
	int type = lua_getfield(L, 1, name);

	if (type != LUA_TNIL && type != LUA_TFUNCTION)
		luaL_error(L, "bad field '%s' (function expected, got %s)", name,
			   luaL_typename(L, -1));
	lua_pop(L, 1);
}

struct making {
	struct luadevice checked;	/* what is taken so far */
	struct handle *handle;
};

static void making_take(lua_State *L, void *arg)
{
	struct making *making = arg;
	struct luadevice *device;
	int ret;

	making->checked.driver = lunatik_ref(L, 1);
	device = lunatik_alloc(L, sizeof(*device));
	*device = making->checked;

	lunatik_hook_add(L, &device->hook, &device_hook_ops);
	ret = device_register_named(device);
	if (ret) {
		/* An open() that found it meanwhile waits for the runtime. */
		device->driver = LUA_NOREF;
		lunatik_hook_abort(&device->hook);
		lunatik_throw(L, ret);
	}
	lunatik_hook_get(&device->hook);
	making->handle->device = device;
}

static void making_drop(lua_State *L, void *arg)
{
	lunatik_unref(L, ((struct making *)arg)->checked.driver);
}

/* new{name = , open = , read = , write = , release = , mode = } */
static int device_new(lua_State *L)
{
	struct making making = { .checked.driver = LUA_NOREF };

	luaL_checktype(L, 1, LUA_TTABLE);
	lunatik_checksleep(L, "device.new");
	take_name(L, &making.checked);
	check_callback(L, "open");
	check_callback(L, "read");
	check_callback(L, "write");
	check_callback(L, "release");
	making.checked.mode = lunatik_optfieldrange(L, 1, "mode", 0600, 0, 0777);

	making.handle = lunatik_new(L, &handle_class, sizeof(*making.handle));
	lunatik_attempt(L, making_take, making_drop, &making);
	return 1;
}

static const luaL_Reg device_functions[] = {
	{"new", device_new},
	{}
};

static const struct lunatik_library device_library = {
	.name = "device",
	.contexts = LUNATIK_PROCESS,
	.functions = device_functions,
};

LUNATIK_LIBRARY(device, device_library);

static int __init device_init(void)
{
	int ret;

	ret = alloc_chrdev_region(&first, 0, DEVICE_MINORS, "lunatik");
	if (ret)
		return ret;
	ret = class_register(&device_class);
	if (ret)
		goto unregister_region;
	cdev_init(&cdev, &device_operations);
	cdev.owner = THIS_MODULE;
	ret = cdev_add(&cdev, first, DEVICE_MINORS);
	if (ret)
		goto unregister_class;
	return 0;

unregister_class:
	class_unregister(&device_class);
unregister_region:
	unregister_chrdev_region(first, DEVICE_MINORS);
	return ret;
}

static void __exit device_exit(void)
{
	cdev_del(&cdev);
	class_unregister(&device_class);
	unregister_chrdev_region(first, DEVICE_MINORS);
}

module_init(device_init);
module_exit(device_exit);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Lunatik: character devices in Lua");
