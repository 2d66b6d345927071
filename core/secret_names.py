"""What the name in front of a value says of it: `password`, `api_key`, `adafruitToken`, `sort_key`.

In:  a name, or the text in front of a value
Out: how strongly it speaks for a secret

Four strengths. After a password's name any word may be one; after `secret` or `api_key` a digit or a symbol is enough; after
`token`, `key` or `auth`, which name many harmless things, the value must look generated, as it must beside a vendor's name.
"""

from __future__ import annotations

import re
from enum import IntEnum

from core.findings import words


class Strength(IntEnum):
    """How much a name says."""

    NONE = 0
    WEAK = 1
    STRONG = 2
    PASSWORD = 3


_PASSWORD = re.compile(
    r"""(?xi)
    pass(?:wor[dt]|wd|phrase|code) | (?<![a-z])pwd | pwd(?![a-z]) | (?:^|[_\-.])pass(?:$|[_\-.\d]) | (?-i:(?<=[a-z])Pass$)
    | (?:store|key|db|user|admin|root|smtp|mail|ftp|ssh|http|login|proxy|my)_?pass$ | (?:^|[_\-.])(?:pw|psk|wpa[_\-]?key)$
    | contrase(?:n|ñ)a | (?<![a-z])(?:kennwort|senha|clave|haslo|wachtwoord|losenord|heslo|jelszo|parola)(?![a-z])
    | mot[ _\-]?de[ _\-]?passe | ^identified$
    | mnemonic | (?:seed|recovery|backup)[_\-]?phrase | пароль | 密码 | 密碼 | パスワード | 비밀번호"""
)
_STRONG = re.compile(
    r"""(?xi)
    secret | cred(?:s|ential) | api[_\-]?key
    | (?:api|access|auth|priv(?:ate)?|encrypt(?:ion)?|decrypt(?:ion)?|sign(?:ing)?|account|master|client|service|app|consumer|storage|shared
        |license|deploy|db|database|admin|security|webhook|hmac|aes|jwt|session|crypto|cipher|server|subscription|functions?|host|bot
      )[_\-. ]?key(?![a-z])
    | (?:api|access|auth|refresh|bearer|bot|id|session|deploy|client|private|personal|user|oauth|github|gitlab|slack|npm|pypi|csrf|app
        |service|push|admin|security|x)[_\-. ]?token(?![a-z])
    | auth[_\-]?code | dsn$ | (?:^|[_\-.])key[_\-]?pass | (?:^|[_\-.])(?:salt|pepper)$"""
)
_WEAK = re.compile(
    r"(?i)token(?![a-z])|key(?![a-z])|(?<![a-z])auth(?!or)|authorization|(?:^|[_\-])cred|bearer|basic|(?<![a-z])pass(?![a-z])"
    r"|(?<![a-z])(?:nonce|salt|cookie|sas|sig|session|sid|keys|tokens|b64|base64|api|seed|pat)(?![a-z])|sess(?:ion)?_?id(?![a-z])"
)
# Words that hold a telling one and mean something else; the rest of the name still counts (COMPASS_PASSWORD)
_LOOKALIKE = re.compile(
    r"(?i)keywords?|keyboards?|monkey|turkey|hockey|keyframes?|keystrokes?|authors?(?!iz)|tokeniz(?:ers?|ed?|ing|ation)|secretar(?:y|ies|ial)"
    r"|(?:en)?compass|passengers?|passive|bypass(?:ed|es)?|pass(?:ed|ing|es)|passthr(?:ough|u)|keypress(?:ed)?|keycodes?"
)
_HARMLESS = re.compile(
    r"""(?xi)
    (?:^|[_\-.])(?:pad|eos|bos|unk|sep|cls|mask|image|special|stop|start|end|next|prev|page|continuation|sync|primary|foreign|sort|partition|group
        |row|cache|dict|index|column|object|hot|short|map|translation|i18n|parent|routing|hash|config|metric|event|order)[_\-]?(?:token|key)s?
    | pub(?:lic)?[_\-. ]?(?:key|token) | publishable | site[_\-]?key
    | verif(?:y|ication)[_\-]?key | tracking
    | (?:path|file|files|filename|dir|url|uri|endpoint|host|name|type|kind|field|fields|label|header|env|envvar|var|variable|length|len|size
        |count|regex|pattern|prefix|suffix|format|class|id|ids|policy|hint|message|msg|error|err|help|text|title|description|placeholder|validator|form
        |input|reset|expiry|expires?|ttl|timeout|version|algorithm|alg|method|provider|scope|scopes|hasher|hashers|manager|store|arn|ref|selector
        |schema|usage|fingerprint|digest|checksum|sha\d*|md5|attr|attribute|column|getter|callback|handler|function|backend|service|status|state
        |info|strategy|mode|index|tag|xpath|css|element|locator|page|link|button|rule|rules|strength|changed|confirmation|confirm)s?$"""
)
VENDORS = words(  # services whose tokens have no form of their own: their name beside a generated value is what gives it away
    """abuseipdb ably accuweather activecampaign adafruit adobe adyen airbrake airtable akamai alchemy algolia alibaba alienvault aliyun
    amplitude appcenter appdynamics appveyor artifactory asana assemblyai atlassian auth0 baidu bandwidth beamer binance bintray bitbucket
    bitfinex bitly bitmex bitrise bittrex braintree brevo browserstack bugsnag bunnycdn bybit censys checkmarx circleci cisco clarifai
    clearbit clickhouse clickup cloudflare cloudinary cloudsmith codacy codeclimate codecov codeship cohere coinbase coinmarketcap
    confluence confluent contentful contribsys convertkit coveralls crowdin datadog deepgram deepl deepsource digitalocean dingtalk
    discord docusign droneci dropbox dynatrace easypost ebay elastic elevenlabs etherscan etsy eventbrite facebook fastly fastspring
    fauna feishu figma finicity finnhub firebase fitbit flickr flutterwave foursquare frameio freshbooks freshdesk fullstory geocodio
    getresponse giphy gitea gitlab gitter gocardless grafana harness helpscout heroku hetzner honeybadger honeycomb hotjar hubspot
    huggingface imgur infura instagram instana intercom ipinfo ipstack jenkins jfrog jira jotform keycloak klaviyo kraken kucoin
    langfuse langsmith launchdarkly linear linkedin linked_in linked-in linode livechat lob localytics lokalise loggly logdna logzio
    mailchimp mailerlite mailgun mailjet mailmodo mandrill mapbox mapquest mattermost maxmind meraki messagebird message_bird
    message-bird metabase mistral mixpanel mollie moralis nasa netlify newrelic new_relic new-relic nexmo nightfall ngrok notion nytimes
    okta omnisend onelogin onesignal openweather opsgenie pagerduty papertrail pastebin paypal paystack percy phrase pinecone pingdom
    pinterest pipedrive pixabay plaid planetscale plivo poloniex postmark prismic privateai private_ai private-ai pubnub pushbullet
    pusher pushover qdrant qiniu quickbooks quicknode rapidapi raygun razorpay reddit redislabs replicate rollbar salesforce sanity
    saucelabs scaleway scalingo segment sendbird sendgrid sendinblue sentry shodan shopify sidekiq signalfx sinch slack smartsheet snowflake
    snyk sonar sonarqube soundcloud sparkpost splunk spotify squarespace stability statuspage stormpath storyblok strava stytch sumo
    sumologic supabase surveymonkey tableau telegram telegr telnyx tencent textmagic todoist tomtom travis trello tumblr twilio twitch
    twitter typeform uber unsplash upcloud uploadcare upstash uptimerobot urlscan veracode vercel victorops vimeo virustotal vonage vultr
    wakatime weatherapi weaviate webex wechat whitesource wistia woocommerce wordpress wrike xero xray yandex yelp youtube zapier
    zendesk zenrows zerobounce zoho zoom zulip"""
)
_HEADS: dict[str, list[str]] = {}
for _vendor in sorted(VENDORS, key=lambda name: (-len(name), name)):
    _HEADS.setdefault(_vendor[:2], []).append(re.escape(_vendor[2:]))
_VENDOR = re.compile("(?i)(?<![a-z])(?:" + "|".join(f"{head}(?:{'|'.join(rests)})" for head, rests in sorted(_HEADS.items())) + ")")
_TELLING = (  # a name without one of them says nothing: spares the expressions above
    "pass", "pwd", "pw", "psk", "secret", "token", "key", "auth", "cred", "bearer", "basic", "salt", "pepper", "nonce", "cookie", "sas",
    "sig", "dsn", "identified", "session", "sid", "sess", "mnemonic", "phrase", "b64", "base64", "api", "seed", "pat",
    "contrase", "kennwort", "senha", "clave", "haslo", "wachtwoord", "losenord", "heslo", "jelszo", "parola",
)  # fmt: skip


def strength(name: str) -> Strength:
    """What a name says of the value assigned to it."""
    low = name.lower()
    if low.isascii() and not any(word in low for word in _TELLING):
        return Strength.NONE
    name = _LOOKALIKE.sub("", name)
    if _HARMLESS.search(name):
        return Strength.NONE
    if _PASSWORD.search(name):
        return Strength.PASSWORD
    return Strength.STRONG if _STRONG.search(name) else Strength.WEAK if _WEAK.search(name) else Strength.NONE


_PUBLIC_NAME = re.compile(
    r"(?i)pub(?:lic)?[_\-. ]?key|publishable|site[_\-]?key|verif(?:y|ication)[_\-]?key|VerifyKey|fingerprint|b64encode|^secure$|encrypted"
)


def is_public_name(name: str) -> bool:
    """Whether a name says that its value is for everyone, or encrypted."""
    return bool(_PUBLIC_NAME.search(name))


def names_vendor(text: str) -> bool:
    """Whether a service that issues keys is named."""
    return bool(_VENDOR.search(text))


_OPENING = " \t\r\n\"'`\\(@$"  # between the operator and the value
_OPERATOR = "=:?|+!>,-[&"
_CLOSING = " \t\"'`)]\\"  # between the name and the operator
_NAME = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.- \t"
_VALUE_OF = frozenset({"value", "val", "default", "data", "content", "parametervalue", "string"})
_LONGEST = 60  # characters of the name with the words around it


def beside(before: str) -> str:
    """The name, with the words around it on its line, that the text in front of a value gives it; "" where it gives none.

    Nothing but an operator, quotes and blanks may stand between; without an operator they must be on one line. Plain string
    methods, because blocks of base64 ask this tens of thousands of times.
    """
    left = before.rstrip(_OPENING)
    named = left.rstrip(_OPERATOR).rstrip(_CLOSING)
    if named == left and "\n" in before[len(left) :]:
        return ""
    tail = named[-_LONGEST:]
    name = tail[len(tail.rstrip(_NAME)) :].strip(" \t.-")
    if name.lower() in _VALUE_OF:  # `name="X" value="..."`: what it is the value of stands before it
        tail = tail[: tail.rfind(name)].rstrip(" \t\r\n\"'`,;<>=/:")
        name = tail[len(tail.rstrip(_NAME)) :].strip(" \t.-")
    return name
