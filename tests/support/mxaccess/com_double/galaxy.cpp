#include "galaxy.h"

#include "alarms.h"

#include <cmath>
#include <cwchar>
#include <cwctype>

namespace {

constexpr LCID ENGLISH = 0x0409;

std::wstring lower(std::wstring text) {
    for (auto &character : text) character = std::towlower(character);
    return text;
}

std::wstring trimmed(const std::wstring &text) {
    const auto first = text.find_first_not_of(L" \t\r\n");
    if (first == text.npos) return L"";
    return text.substr(first, text.find_last_not_of(L" \t\r\n") - first + 1);
}

Variant vector_of(VARTYPE vt, const void *elements, ULONG count, size_t size) {
    Variant made;
    SAFEARRAY *array = SafeArrayCreateVector(vt, 0, count);
    void *data = nullptr;
    SafeArrayAccessData(array, &data);
    if (elements && count) memcpy(data, elements, count * size);
    SafeArrayUnaccessData(array);
    made.get()->vt = VT_ARRAY | vt;
    made.get()->parray = array;
    return made;
}

ULONG length(const VARIANT &value) {
    return (value.vt & VT_ARRAY) && value.parray && SafeArrayGetDim(value.parray) == 1 ? value.parray->rgsabound[0].cElements : 0;
}

// Returns an element of an array of one dimension as a VARIANT.
Variant element(const VARIANT &array, ULONG place) {
    Variant found;
    LONG index = array.parray->rgsabound[0].lLbound + LONG(place);
    const VARTYPE vt = array.vt & VT_TYPEMASK;
    if (vt == VT_VARIANT) {
        SafeArrayGetElement(array.parray, &index, found.get());
    } else {
        found.get()->vt = vt;
        SafeArrayGetElement(array.parray, &index, vt == VT_DECIMAL ? (void *)&found.get()->decVal : (void *)&found.get()->llVal);
        found.get()->vt = vt;
    }
    return found;
}

void put(VARIANT *array, ULONG place, const VARIANT &value) {
    LONG index = LONG(place);
    const VARTYPE vt = array->vt & VT_TYPEMASK;
    SafeArrayPutElement(array->parray, &index, vt == VT_BSTR ? (void *)value.bstrVal : (void *)&value.llVal);
}

Detail convert(const VARIANT &given, VARTYPE vt, Variant &made) {
    if (given.vt == VT_EMPTY || given.vt == VT_NULL) return WRONG_DATA_TYPE;
    if (given.vt & VT_ARRAY) return WRONG_NUMBER_OF_DIMENSIONS;
    const HRESULT result = VariantChangeTypeEx(made.out(), const_cast<VARIANT *>(&given), ENGLISH, VARIANT_ALPHABOOL, vt);
    if (SUCCEEDED(result)) return SUCCESS;
    if (result == DISP_E_OVERFLOW) return OVERFLOWED;
    return given.vt == VT_BSTR ? UNABLE_TO_CONVERT_STRING : WRONG_DATA_TYPE;
}

}  // namespace

Variant truth(bool value) { Variant made; made.get()->vt = VT_BOOL; made.get()->boolVal = value ? VARIANT_TRUE : VARIANT_FALSE; return made; }
Variant integer(long value) { Variant made; made.get()->vt = VT_I4; made.get()->lVal = value; return made; }
Variant real32(float value) { Variant made; made.get()->vt = VT_R4; made.get()->fltVal = value; return made; }
Variant real(double value) { Variant made; made.get()->vt = VT_R8; made.get()->dblVal = value; return made; }
Variant date(double value) { Variant made; made.get()->vt = VT_DATE; made.get()->date = value; return made; }
Variant text(const std::wstring &value) {
    Variant made;
    made.get()->vt = VT_BSTR;
    made.get()->bstrVal = SysAllocStringLen(value.data(), UINT(value.size()));
    return made;
}

Variant zeros(VARTYPE vt, ULONG count) {
    if (vt == VT_BSTR) return texts(std::vector<std::wstring>(count));
    return vector_of(vt, nullptr, count, 0);
}

Variant texts(const std::vector<std::wstring> &values) {
    Variant made = vector_of(VT_BSTR, nullptr, ULONG(values.size()), 0);
    for (ULONG place = 0; place < values.size(); ++place) put(made.get(), place, *text(values[place]));
    return made;
}

bool same(const VARIANT &one, const VARIANT &other) {
    if (one.vt != other.vt) return false;
    if (one.vt & VT_ARRAY) {
        const ULONG count = length(one);
        if (count != length(other)) return false;
        for (ULONG place = 0; place < count; ++place)
            if (!same(*element(one, place), *element(other, place))) return false;
        return true;
    }
    switch (one.vt) {
    case VT_EMPTY:
    case VT_NULL: return true;
    case VT_BSTR: return SysStringByteLen(one.bstrVal) == SysStringByteLen(other.bstrVal)
            && !memcmp(one.bstrVal, other.bstrVal, SysStringByteLen(one.bstrVal));
    case VT_BOOL:
    case VT_I2:
    case VT_UI2: return one.iVal == other.iVal;
    case VT_I1:
    case VT_UI1: return one.bVal == other.bVal;
    case VT_R8:
    case VT_DATE:
    case VT_CY:
    case VT_I8:
    case VT_UI8: return one.llVal == other.llVal;
    case VT_DECIMAL: return !memcmp(&one.decVal.scale, &other.decVal.scale, 14);
    default: return one.lVal == other.lVal;
    }
}

double now() {
    SYSTEMTIME time;
    GetSystemTime(&time);
    double date = 0;
    SystemTimeToVariantTime(&time, &date);
    return date + time.wMilliseconds / 86400000.0;  // which the call leaves out
}

Status succeeded() { return {-1, 0, 1, SUCCESS}; }

Status pending(short detail) { return {-1, 1, 0, detail}; }

Status failed(Detail detail) {
    switch (detail) {
    case PLATFORM_COMMUNICATION_ERROR: return {0, 3, 2, detail};
    case INVALID_REFERENCE:
    case INVALID_INDEX:
    case WRONG_NUMBER_OF_DIMENSIONS: return {0, 4, 0, detail};
    case INVALID_OBJECT_ID: return {0, 4, 1, detail};
    case INVALID_ATTRIBUTE_ID:
    case INDEX_OUT_OF_RANGE: return {0, 4, 5, detail};
    case WRONG_DATA_TYPE:
    case UNABLE_TO_CONVERT_STRING:
    case OVERFLOWED: return {0, 5, 0, detail};
    case DATA_OUT_OF_RANGE:
    case ALARM_ACKED_ALREADY:
    case NOT_WRITEABLE: return {0, 5, 5, detail};
    default: return {0, 6, 5, detail};
    }
}

Galaxy::Galaxy(const std::function<void(const std::wstring &, const VARIANT &)> &switched) {
    add_bench();
    add_raw();
    add_tank();
    add_switches(switched);
    scan_count = &add(L"AppEngine_001", L"ScanCount", VT_I4, integer(0));
    scan_count->is_constant = true;
    add(L"Silent_001", L"Count", VT_I4, integer(0)).is_silent = true;
    add(L"Load", L"Target", VT_R8, real(0));
}

Attribute &Galaxy::add(const std::wstring &object, const std::wstring &name, VARTYPE vt, const Variant &value) {
    auto &attributes = objects_[lower(object)];
    attributes.push_back(std::make_unique<Attribute>());
    Attribute &made = *attributes.back();
    made.name = name;
    made.vt = vt;
    made.is_array = vt != VT_VARIANT && (value->vt & VT_ARRAY);
    made.value = value;
    made.time = now();
    return made;
}

void Galaxy::add_bench() {
    const std::wstring bench = L"Bench_001";
    add(bench, L"Flag", VT_BOOL, truth(false));
    add(bench, L"Count", VT_I4, integer(0));
    add(bench, L"Ratio", VT_R4, real32(0));
    add(bench, L"Amount", VT_R8, real(0));
    add(bench, L"Text", VT_BSTR, text(L""));
    add(bench, L"Moment", VT_DATE, date(std::floor(now())));
    add(bench, L"Title", VT_BSTR, text(L"Pr\u00fcfstand"));
    add(bench, L"Flags", VT_BOOL, zeros(VT_BOOL, 4));
    add(bench, L"Counts", VT_I4, zeros(VT_I4, 10));
    add(bench, L"Ratios", VT_R4, zeros(VT_R4, 4));
    add(bench, L"Amounts", VT_R8, zeros(VT_R8, 4));
    add(bench, L"Texts", VT_BSTR, zeros(VT_BSTR, 50));
    add(bench, L"Moments", VT_DATE, zeros(VT_DATE, 2));
    auto &percent = add(bench, L"Percent", VT_R8, real(0));
    percent.has_range = true;
    percent.high = 100;
    const std::vector<std::pair<std::wstring, Security>> classes = {
        {L"FreeAccess", FREE_ACCESS}, {L"Operate", OPERATE}, {L"SecuredWrite", SECURED}, {L"VerifiedWrite", VERIFIED},
        {L"Tune", TUNE}, {L"Configure", CONFIGURE}, {L"ViewOnly", VIEW_ONLY}};
    for (const auto &one : classes) add(bench, one.first, VT_I4, integer(0)).security = one.second;
    add(bench, L"Constant", VT_I4, integer(42)).is_constant = true;
    add(bench, L"Pending", VT_I4, integer(0)).answers_pending = true;
}

void Galaxy::add_tank() {
    const std::wstring tank = L"Tank_001";
    const AlarmData alarm = Alarms::all().tank();
    add(tank, L"Level", VT_R8, real(alarm.value)).is_constant = true;
    in_alarm = &add(tank, L"Level.InAlarm", VT_BOOL, truth(alarm.in_alarm));
    is_acknowledged = &add(tank, L"Level.Acked", VT_BOOL, truth(alarm.is_acknowledged));
    Attribute *priority = &add(tank, L"Level.Priority", VT_I4, integer(alarm.priority));
    for (Attribute *one : {in_alarm, is_acknowledged, priority}) one->is_constant = true;
    add(tank, L"Level.Limit", VT_R8, real(alarm.limit)).applied = [](const VARIANT &value) {
        Alarms::all().set_limit(value.dblVal);
        return SUCCESS;
    };
    add(tank, L"Level.AckMsg", VT_BSTR, text(L"")).applied = [alarm](const VARIANT &value) {
        const std::wstring comment(value.bstrVal ? value.bstrVal : L"", SysStringLen(value.bstrVal));
        return Alarms::all().acknowledge(alarm.reference, comment, L"") == Acknowledged::NOW ? SUCCESS : ALARM_ACKED_ALREADY;
    };
}

void Galaxy::add_raw() {
    const std::wstring raw = L"Raw_001";
    auto any = [&](const std::wstring &name, const Variant &value) { add(raw, name, VT_VARIANT, value); };
    auto of = [](VARTYPE vt, LONGLONG bits) {
        Variant made;
        made.get()->vt = vt;
        made.get()->llVal = bits;
        return made;
    };
    any(L"Anything", Variant());
    any(L"Empty", Variant());
    any(L"Null", of(VT_NULL, 0));
    any(L"I1", of(VT_I1, 0xFE));
    any(L"I2", of(VT_I2, 0xFFFE));
    any(L"I4", integer(41));
    any(L"I8", of(VT_I8, 1LL << 40));
    any(L"UI1", of(VT_UI1, 0xFF));
    any(L"UI2", of(VT_UI2, 0xFFFF));
    any(L"UI4", of(VT_UI4, 0xFFFFFFFF));
    any(L"UI8", of(VT_UI8, -1));
    any(L"Int", of(VT_INT, 7));
    any(L"UInt", of(VT_UINT, 7));
    any(L"R4", real32(1.5f));
    any(L"R8", real(2.25));
    any(L"Bool", truth(true));
    any(L"Bstr", text(L"gr\u00fc\u00df \u0416"));
    any(L"Error", of(VT_ERROR, E_FAIL));
    any(L"Cy", of(VT_CY, 123456));
    Variant decimal;
    VarDecFromR8(3.75, &decimal.get()->decVal);
    decimal.get()->vt = VT_DECIMAL;
    any(L"Decimal", decimal);
    any(L"Date", date(45000.0 + 123.0 / 86400000.0));
    any(L"OldDate", date(-700000.0));  // before the year 1
    const long numbers[] = {1, 2, 3};
    any(L"Numbers", vector_of(VT_I4, numbers, 3, sizeof(long)));
    const double dates[] = {45000.5, 45001.25};
    any(L"Dates", vector_of(VT_DATE, dates, 2, sizeof(double)));
    any(L"NoNumbers", zeros(VT_I4, 0));
    Variant mixed = vector_of(VT_VARIANT, nullptr, 2, 0);
    LONG place = 0;
    SafeArrayPutElement(mixed.get()->parray, &place, integer(7).get());
    place = 1;
    SafeArrayPutElement(mixed.get()->parray, &place, text(L"x").get());
    any(L"Variants", mixed);
    // Element [i][j] is 10 i + j, of two rows and three columns.
    SAFEARRAYBOUND bounds[] = {{2, 0}, {3, 0}};
    Variant table;
    table.get()->vt = VT_ARRAY | VT_I4;
    table.get()->parray = SafeArrayCreate(VT_I4, 2, bounds);
    for (LONG row = 0; row < 2; ++row)
        for (LONG column = 0; column < 3; ++column) {
            LONG indices[] = {row, column};
            long value = 10 * row + column;
            SafeArrayPutElement(table.get()->parray, indices, &value);
        }
    any(L"Table", table);
}

void Galaxy::add_switches(const std::function<void(const std::wstring &, const VARIANT &)> &switched) {
    auto one = [&](const std::wstring &name, VARTYPE vt, const Variant &value) {
        auto &made = add(L"Sim", name, vt, value);
        made.is_immune = true;
        made.written = [switched, name](const VARIANT &value) { switched(name, value); };
    };
    auto alarms = [&](const std::wstring &name, void (Alarms::*set)(bool)) {
        auto &made = add(L"Sim", name, VT_BOOL, truth(false));
        made.is_immune = true;
        made.applied = [set](const VARIANT &value) {
            (Alarms::all().*set)(value.boolVal != VARIANT_FALSE);
            return SUCCESS;
        };
    };
    alarms(L"AlarmManagerDown", &Alarms::set_down);        // true: calls of the alarm manager fail
    alarms(L"AlarmManagerHanging", &Alarms::set_hanging);  // true: they do not return
    one(L"PlatformDown", VT_BOOL, truth(false));  // true takes the platform down
    one(L"DropCompletions", VT_I4, integer(0));     // so many write completions are not sent
    one(L"CompletionDelay", VT_R8, real(0));        // seconds until a write completes
    one(L"Hang", VT_R8, real(0));                   // seconds for which the server's thread stands still
    one(L"TextTimes", VT_BOOL, truth(false));     // true: the times of events are texts
    one(L"BadTimes", VT_BOOL, truth(false));      // true: they are dates before the year 1
    one(L"StatusesByValue", VT_BOOL, truth(false));
    one(L"NoStatuses", VT_BOOL, truth(false));  // true: the list of statuses of every event is empty
}

Found Galaxy::find(const std::wstring &definition, const std::wstring &context) {
    if (!context.empty()) {
        const Found within = parsed(context + L"." + trimmed(definition));
        if (within.attribute) return within;
    }
    return parsed(definition);
}

Found Galaxy::parsed(const std::wstring &reference) {
    std::wstring name = trimmed(reference);
    Found found;
    const auto bracket = name.find(L'[');
    if (bracket != name.npos) {
        if (name.back() != L']') { found.detail = INVALID_REFERENCE; return found; }
        const std::wstring inside = trimmed(name.substr(bracket + 1, name.size() - bracket - 2));
        name.resize(bracket);
        if (inside.empty()) {
            found.index = WHOLE_ARRAY;
        } else {
            wchar_t *end = nullptr;
            found.index = std::wcstol(inside.c_str(), &end, 10);
            if (*end || inside.size() > 9) { found.detail = INVALID_REFERENCE; return found; }
            if (found.index < 1) { found.detail = INVALID_INDEX; return found; }
        }
    }
    const auto dot = name.find(L'.');
    if (dot == name.npos || dot == 0 || dot + 1 == name.size()) { found.detail = INVALID_REFERENCE; return found; }
    const std::wstring object = lower(name.substr(0, dot)), wanted = lower(name.substr(dot + 1));
    if (object == L"load" && wanted.size() == 9 && !wanted.compare(0, 4, L"item")) {
        auto &made = names_[name];
        if (!made) {
            made = std::make_unique<Attribute>();
            made->vt = VT_R8;
            made->is_constant = true;
            made->load_number = std::wcstol(wanted.c_str() + 4, nullptr, 10);
            made->value = real(0);
        }
        found.attribute = made.get();
        return found;
    }
    const auto holder = objects_.find(object);
    if (holder == objects_.end()) { found.detail = INVALID_OBJECT_ID; return found; }
    if (wanted == L"_attributes") {
        auto &made = names_[object];
        if (!made) {
            std::vector<std::wstring> all;
            for (const auto &one : holder->second) all.push_back(one->is_array ? one->name + L"[]" : one->name);
            made = std::make_unique<Attribute>();
            made->vt = VT_VARIANT;
            made->is_constant = true;
            made->value = texts(all);
            made->time = now();
        }
        found.attribute = made.get();
        return found;
    }
    for (const auto &one : holder->second) {
        if (lower(one->name) != wanted) continue;
        if (one->is_array && found.index == NO_INDEX) { found.detail = INDEX_OUT_OF_RANGE; return found; }
        if (!one->is_array && found.index != NO_INDEX) { found.detail = WRONG_NUMBER_OF_DIMENSIONS; return found; }
        found.attribute = one.get();
        return found;
    }
    found.detail = INVALID_ATTRIBUTE_ID;
    return found;
}

Detail value_at(const Attribute &attribute, long index, Variant &value) {
    if (index == NO_INDEX || index == WHOLE_ARRAY) {
        value = attribute.value;
        return SUCCESS;
    }
    if (ULONG(index) > length(*attribute.value)) return INDEX_OUT_OF_RANGE;
    value = element(*attribute.value, ULONG(index) - 1);
    return SUCCESS;
}

Detail accept(const Attribute &attribute, long index, const VARIANT &given, Variant &accepted) {
    if (attribute.vt == VT_VARIANT) {
        accepted = Variant(given);
        return SUCCESS;
    }
    if (index == WHOLE_ARRAY) {
        if (!(given.vt & VT_ARRAY) || !given.parray || SafeArrayGetDim(given.parray) != 1) return WRONG_NUMBER_OF_DIMENSIONS;
        const ULONG count = length(given);
        Variant made = zeros(attribute.vt, count);
        for (ULONG place = 0; place < count; ++place) {
            Variant one;
            const Detail detail = convert(*element(given, place), attribute.vt, one);
            if (detail != SUCCESS) return detail;
            put(made.get(), place, *one);
        }
        accepted = made;
        return SUCCESS;
    }
    Variant one;
    const Detail detail = convert(given, attribute.vt, one);
    if (detail != SUCCESS) return detail;
    if (attribute.has_range && (one->dblVal < attribute.low || one->dblVal > attribute.high)) return DATA_OUT_OF_RANGE;
    if (index == NO_INDEX) {
        accepted = one;
        return SUCCESS;
    }
    if (ULONG(index) > length(*attribute.value)) return INDEX_OUT_OF_RANGE;
    accepted = attribute.value;
    put(accepted.get(), ULONG(index) - 1, *one);
    return SUCCESS;
}
