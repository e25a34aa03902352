#include "consumer.h"

#include <algorithm>
#include <cwchar>

#include "alarms.h"

namespace {

constexpr LONG REFUSED = -55;

std::wstring text_of(BSTR text) { return text ? std::wstring(text, SysStringLen(text)) : std::wstring(); }

void element(std::wstring &xml, const wchar_t *name, const std::wstring &text) {
    xml += std::wstring(L"<") + name + L">";
    for (const wchar_t character : text) {
        if (character == L'<') xml += L"&lt;";
        else if (character == L'&') xml += L"&amp;";
        else xml += character;
    }
    xml += std::wstring(L"</") + name + L">";
}

std::wstring number(double value) {
    wchar_t made[40];
    swprintf(made, 40, L"%.15g", value);
    return made;
}

// Returns one record. Its time is that of the last step.
std::wstring record(const AlarmData &alarm) {
    const ULONGLONG last = std::max({alarm.raised, alarm.acknowledged, alarm.cleared});
    const FILETIME time = {DWORD(last), DWORD(last >> 32)};
    SYSTEMTIME parts;
    FileTimeToSystemTime(&time, &parts);
    wchar_t date[32], time_of_day[32];
    swprintf(date, 32, L"%d/%d/%d", parts.wYear, parts.wMonth, parts.wDay);
    swprintf(time_of_day, 32, L"%02d:%02d:%02d.%03d", parts.wHour, parts.wMinute, parts.wSecond, parts.wMilliseconds);
    std::wstring xml = L"<ALARM>";
    element(xml, L"GUID", alarm.guid);
    element(xml, L"DATE", date);
    element(xml, L"TIME", time_of_day);
    element(xml, L"GMTOFFSET", L"0");
    element(xml, L"DSTADJUST", L"0");
    element(xml, L"PROVIDER", L"Galaxy");
    element(xml, L"GROUP", alarm.area);
    element(xml, L"TAGNAME", alarm.reference);
    element(xml, L"TYPE", alarm.type);
    element(xml, L"VALUE", number(alarm.value));
    element(xml, L"LIMIT", number(alarm.limit));
    element(xml, L"PRIORITY", std::to_wstring(alarm.priority));
    element(xml, L"STATE", std::wstring(alarm.is_acknowledged ? L"ACK_" : L"UNACK_") + (alarm.in_alarm ? L"ALM" : L"RTN"));
    element(xml, L"OPERATOR", alarm.operator_name);
    element(xml, L"COMMENT", alarm.is_acknowledged ? alarm.comment : alarm.description);
    return xml + L"</ALARM>";
}

}  // namespace

Consumer::Consumer()
    : Dual<IwwAlarmConsumer2>(IID_IwwAlarmConsumer2), Dual<IwwAlarmConsumer>(IID_IwwAlarmConsumer), thread_(GetCurrentThreadId()) {
    InterlockedIncrement(&live_objects);
}

STDMETHODIMP Consumer::QueryInterface(REFIID iid, void **out) {
    *out = nullptr;
    if (iid == IID_IUnknown || iid == IID_IDispatch || iid == IID_IwwAlarmConsumer2) *out = static_cast<IwwAlarmConsumer2 *>(this);
    if (iid == IID_IwwAlarmConsumer) *out = static_cast<IwwAlarmConsumer *>(this);
    if (!*out) return E_NOINTERFACE;
    AddRef();
    return S_OK;
}

STDMETHODIMP_(ULONG) Consumer::Release() {
    const LONG left = InterlockedDecrement(&references_);
    if (!left) delete this;
    return ULONG(left);
}

STDMETHODIMP Consumer::InitializeConsumer(BSTR, LONG *result) {
    *result = 0;
    if (GetCurrentThreadId() != thread_) return RPC_E_WRONG_THREAD;
    is_initialized_ = true;
    return S_OK;
}

STDMETHODIMP Consumer::RegisterConsumer(LONG window, BSTR, BSTR, BSTR, LONG *result) {
    *result = 0;
    if (!is_initialized_ || window) return E_FAIL;
    is_registered_ = true;
    return S_OK;
}

STDMETHODIMP Consumer::Subscribe(BSTR subscription, SHORT from, SHORT to, LONG, LONG, LONG, LONG, LONG *result) {
    *result = 0;
    const std::wstring wanted = text_of(subscription);
    if (!is_registered_ || wanted.compare(0, 2, L"\\\\") || wanted.find(L'!') == wanted.npos || from > to) return E_FAIL;
    is_subscribed_ = true;
    return S_OK;
}

STDMETHODIMP Consumer::SetXmlAlarmQuery(BSTR query) {
    const std::wstring wanted = text_of(query);
    if (!is_registered_ || wanted.compare(0, 9, L"<QUERIES ") || wanted.find(L"<GROUP>Area_001</GROUP>") == wanted.npos) return E_FAIL;
    has_query_ = true;
    return S_OK;
}

STDMETHODIMP Consumer::GetXmlCurrentAlarms2(LONG most, VARIANT *xml) {
    VariantInit(xml);
    while (Alarms::all().is_hanging()) Sleep(5);
    if (!has_query_ || Alarms::all().is_down() || GetCurrentThreadId() != thread_) return E_FAIL;
    auto alarms = Alarms::all().listed();
    if (LONG(alarms.size()) > most) alarms.resize(most);
    std::wstring made = L"<?xml version=\"1.0\" encoding=\"UTF-16\"?><ALARM_RECORDS COUNT=\"" + std::to_wstring(alarms.size()) + L"\">";
    for (const auto &alarm : alarms) made += record(alarm);
    made += L"</ALARM_RECORDS>";
    xml->vt = VT_BSTR;
    xml->bstrVal = SysAllocStringLen(made.data(), UINT(made.size()));
    return S_OK;
}

STDMETHODIMP Consumer::AlarmAckByName(BSTR name, BSTR, BSTR, BSTR comment, BSTR operator_name, BSTR, LONG *result) {
    while (Alarms::all().is_hanging()) Sleep(5);
    if (Alarms::all().is_down()) return E_FAIL;
    *result = REFUSED;
    // A query breaks the acknowledgements of its consumer.
    if (has_query_ || !is_subscribed_) return S_OK;
    if (Alarms::all().acknowledge(text_of(name), text_of(comment), text_of(operator_name)) != Acknowledged::UNKNOWN) *result = 0;
    return S_OK;
}

STDMETHODIMP Consumer::AlarmAckByName(BSTR, BSTR, BSTR, BSTR, BSTR, BSTR, BSTR, BSTR, LONG *result) {
    *result = REFUSED;
    return S_OK;
}

STDMETHODIMP Consumer::AlarmAckByGUID(BSTR, BSTR, BSTR, BSTR, BSTR, BSTR, LONG *) { return E_NOTIMPL; }

STDMETHODIMP Consumer::DeregisterConsumer(LONG *result) {
    *result = 0;
    is_registered_ = is_subscribed_ = has_query_ = false;
    return S_OK;
}

STDMETHODIMP Consumer::UninitializeConsumer(LONG *result) {
    *result = 0;
    is_initialized_ = false;
    return S_OK;
}
