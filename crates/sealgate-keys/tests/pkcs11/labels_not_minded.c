/* SoftHSM whose searches find objects whatever their label. */

#include <dlfcn.h>
#include <string.h>

typedef unsigned long CK_ULONG;
typedef CK_ULONG (*function)();

#define CKA_LABEL 3UL
#define CKR_GENERAL_ERROR 5UL

/* Version 2.40 of the list, in the order of pkcs11f.h. */
enum { FIND_OBJECTS_INIT = 26, ALL = 68, ATTRIBUTES_MAX = 16 };
struct list {
    unsigned char version[2];
    function of[ALL];
};

struct attribute {
    CK_ULONG type;
    void *value;
    CK_ULONG length;
};

static struct list *real, ours;

static CK_ULONG find_objects_init(CK_ULONG session, struct attribute *template, CK_ULONG count) {
    struct attribute rest[ATTRIBUTES_MAX];
    CK_ULONG left = 0;
    for (CK_ULONG at = 0; at < count && left < ATTRIBUTES_MAX; at++)
        if (template[at].type != CKA_LABEL)
            rest[left++] = template[at];
    return real->of[FIND_OBJECTS_INIT](session, rest, left);
}

CK_ULONG C_GetFunctionList(struct list **list) {
    void *module = dlopen("/usr/lib/softhsm/libsofthsm2.so", RTLD_NOW);
    CK_ULONG (*get)(struct list **) = module ? dlsym(module, "C_GetFunctionList") : 0;
    if (!get || get(&real) != 0)
        return CKR_GENERAL_ERROR;
    memcpy(&ours, real, sizeof ours);
    ours.of[FIND_OBJECTS_INIT] = (function)find_objects_init;
    *list = &ours;
    return 0;
}
