// The attributes of a small Galaxy: those of the simulator's profile `plant` that the behavioural tests use, one of every
// VARIANT type, and switches that make the double misbehave.
#pragma once

#include <windows.h>
#include <oleauto.h>

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

// A VARIANT that owns what it holds. The calls that copy one take it as if they could change it, and do not.
class Variant {
public:
    Variant() { VariantInit(&value_); }
    Variant(const Variant &other) : Variant() { VariantCopy(&value_, const_cast<VARIANT *>(&other.value_)); }
    explicit Variant(const VARIANT &other) : Variant() { VariantCopyInd(&value_, const_cast<VARIANT *>(&other)); }
    Variant &operator=(const Variant &other) { if (this != &other) VariantCopy(&value_, const_cast<VARIANT *>(&other.value_)); return *this; }
    ~Variant() { VariantClear(&value_); }
    VARIANT *out() { VariantClear(&value_); return &value_; }
    VARIANT *get() { return &value_; }
    const VARIANT &operator*() const { return value_; }
    const VARIANT *operator->() const { return &value_; }

private:
    VARIANT value_;
};

Variant truth(bool value);
Variant integer(long value);
Variant real32(float value);
Variant real(double value);
Variant text(const std::wstring &value);
Variant date(double value);
// An array of `count` elements of this type, each zero, false or "".
Variant zeros(VARTYPE vt, ULONG count);
Variant texts(const std::vector<std::wstring> &values);
// True when both are of one type and have the same value.
bool same(const VARIANT &one, const VARIANT &other);
double now();

// The details that the double uses. Source: docs/reference/mxaccess.md#status-details.
enum Detail : short {
    SUCCESS = 0,
    PLATFORM_COMMUNICATION_ERROR = 2,
    INVALID_REFERENCE = 6,
    INVALID_OBJECT_ID = 8,
    RESOLVING_ATTRIBUTE = 11,
    WRONG_DATA_TYPE = 13,
    WRONG_NUMBER_OF_DIMENSIONS = 14,
    INVALID_INDEX = 15,
    UNABLE_TO_CONVERT_STRING = 19,
    OVERFLOWED = 20,
    INVALID_ATTRIBUTE_ID = 1001,
    INDEX_OUT_OF_RANGE = 1003,
    DATA_OUT_OF_RANGE = 1004,
    NOT_WRITEABLE = 1007,
    WRITE_ACCESS_DENIED = 1008,
    ENGINE_INITIALIZING = 1011,
    SECURED_WRITE = 1012,
    VERIFIED_WRITE = 1013,
    ALARM_ACKED_ALREADY = 1015,
};

struct Status {
    short success;
    long category;
    long detected_by;
    short detail;
};

Status succeeded();
Status pending(short detail = SUCCESS);
Status failed(Detail detail);

enum Security { FREE_ACCESS, OPERATE, SECURED, VERIFIED, TUNE, CONFIGURE, VIEW_ONLY };

struct Attribute {
    std::wstring name;
    VARTYPE vt = VT_EMPTY;  // of an element, when it is an array; VT_VARIANT takes and keeps a value of any type
    bool is_array = false;
    Security security = FREE_ACCESS;
    bool is_constant = false;
    bool is_immune = false;        // stays reachable while the platform is down
    bool answers_pending = false;  // its writes complete with the category Pending
    bool is_silent = false;        // it never reports anything
    long load_number = 0;          // of an item of the load
    bool has_range = false;
    double low = 0, high = 0;
    Variant value;
    double time = 0;
    std::function<void(const VARIANT &)> written;
    // Called before the write completes, with the new value; what it returns is the result of the write.
    std::function<Detail(const VARIANT &)> applied;
};

constexpr long NO_INDEX = -1, WHOLE_ARRAY = 0;

struct Found {
    Attribute *attribute = nullptr;
    long index = NO_INDEX;
    Detail detail = SUCCESS;
};

class Galaxy {
public:
    explicit Galaxy(const std::function<void(const std::wstring &, const VARIANT &)> &switched);
    // Returns the attribute that a reference names, tried within `context` first, or why there is none.
    Found find(const std::wstring &definition, const std::wstring &context);
    Attribute *scan_count = nullptr;
    Attribute *in_alarm = nullptr, *is_acknowledged = nullptr;

private:
    Attribute &add(const std::wstring &object, const std::wstring &name, VARTYPE vt, const Variant &value);
    void add_bench();
    void add_raw();
    void add_tank();
    void add_switches(const std::function<void(const std::wstring &, const VARIANT &)> &switched);
    Found parsed(const std::wstring &reference);

    std::map<std::wstring, std::vector<std::unique_ptr<Attribute>>> objects_;  // by tag name in lower case
    std::map<std::wstring, std::unique_ptr<Attribute>> names_;                 // `_Attributes` of each
};

// Returns the value at an index, or why there is none.
Detail value_at(const Attribute &attribute, long index, Variant &value);
// Converts what a client writes to the attribute's type, as COM does, into the new value of the whole attribute.
Detail accept(const Attribute &attribute, long index, const VARIANT &given, Variant &accepted);
