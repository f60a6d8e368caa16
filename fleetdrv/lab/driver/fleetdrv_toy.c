// SPDX-License-Identifier: GPL-2.0
/*
 * fleetdrv_toy: the driver that fleetdrv is practised on.
 *
 * It does what a rollout has to be able to see, and nothing else: an open
 * /dev/fleetdrv_toy keeps the module in use, a read tells the version and the
 * parameter, and the sysfs attribute "code" tells which code runs. TOY_CODE
 * is compiled into a function, so the attribute cannot be right by accident
 * when the file on disk was replaced and the old code is still loaded.
 */
#include <linux/fs.h>
#include <linux/init.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/sysfs.h>

#define TOY_CODE "@VERSION@"
#define TOY_FAULT @FAULT@
#define TOY_REMOVED_API 1
#define TOY_INIT_FAILS 2

static char *greeting = "hello";
module_param(greeting, charp, 0444);
MODULE_PARM_DESC(greeting, "What a read of /dev/fleetdrv_toy says after the version");

static ssize_t toy_read(struct file *file, char __user *buffer, size_t size, loff_t *position)
{
	char line[128];
	int length = scnprintf(line, sizeof(line), "fleetdrv_toy %s %s\n", TOY_CODE, greeting);

	return simple_read_from_buffer(buffer, size, position, line, length);
}

/* .owner is what counts the open files as uses of the module. */
static const struct file_operations toy_operations = {
	.owner = THIS_MODULE,
	.read = toy_read,
};

static ssize_t code_show(struct device *device, struct device_attribute *attribute, char *page)
{
	return sysfs_emit(page, "%s\n", TOY_CODE);
}
static DEVICE_ATTR_RO(code);

static struct attribute *toy_attrs[] = {
	&dev_attr_code.attr,
	NULL,
};
ATTRIBUTE_GROUPS(toy);

static struct miscdevice toy_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "fleetdrv_toy",
	.fops = &toy_operations,
	.groups = toy_groups,
	.mode = 0444,
};

static int __init toy_init(void)
{
#if TOY_FAULT == TOY_REMOVED_API
	/* Linux 5.0 removed this call: the way most drivers stop to compile. */
	struct timeval now;

	do_gettimeofday(&now);
#endif
#if TOY_FAULT == TOY_INIT_FAILS
	pr_err("fleetdrv_toy: version %s finds no device it can drive\n", TOY_CODE);
	return -EINVAL;
#endif
	return misc_register(&toy_device);
}

static void __exit toy_exit(void)
{
	misc_deregister(&toy_device);
}

module_init(toy_init);
module_exit(toy_exit);

MODULE_DESCRIPTION("fleetdrv's practice driver");
MODULE_AUTHOR("fleetdrv");
MODULE_LICENSE("GPL");
MODULE_VERSION(TOY_CODE);
