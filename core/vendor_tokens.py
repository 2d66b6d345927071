"""The shapes of the tokens that services hand out: prefix, alphabet and length, each from the service's public documentation.

In:  a Source
Out: a Finding per token, whole

A row is (name, prefixes, pattern from the prefix on). Lengths are the shortest ever issued, left open upwards where the
service says they may grow. A token of too few distinct characters is a placeholder such as `ghp_xxxxxxxx`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from core.findings import Finding, Source, entropy, learn, words
from core.secret_values import is_public_example, is_wordy

_W = r"[A-Za-z0-9_\-]"
_A = r"[A-Za-z0-9]"
_H = r"[A-Fa-f0-9]"

# fmt: off
TOKENS: tuple[tuple[str, str, str], ...] = (
    # clouds
    ("aws_access_key", "AKIA ASIA ABIA ACCA", r"A[A-Z]{3}[A-Z0-9]{16}(?![A-Za-z0-9])"),  # AWS IAM: reference identifiers, unique ids
    ("aws_bedrock_key", "ABSKQmVkcm9ja0FQSUtleS", r"ABSKQmVkcm9ja0FQSUtleS[A-Za-z0-9+/]{60,}={0,2}"),  # AWS Bedrock: API keys
    ("google_api_key", "AIza", rf"AIza{_W}{{35}}"),  # cloud.google.com/docs/authentication/api-keys
    ("google_oauth_secret", "GOCSPX-", rf"GOCSPX-{_W}{{28}}"),  # Google OAuth 2.0 client secrets
    ("google_oauth_token", "ya29.", r"ya29\.[A-Za-z0-9_.\-]{20,}"),  # Google OAuth 2.0 access tokens
    ("google_refresh_token", "1//0", rf"1//0{_W}{{25,}}"),  # Google OAuth 2.0 refresh tokens
    ("azure_client_secret", "8Q~", r"8Q~[A-Za-z0-9_~.\-]{31,}"),  # Microsoft Entra: application secrets
    ("alibaba_key", "LTAI", rf"LTAI{_A}{{12,26}}(?!{_A})"),  # Alibaba Cloud RAM: AccessKey
    ("tencent_key", "AKID", rf"AKID{_A}{{32}}"),  # Tencent Cloud CAM: SecretId
    ("yandex_key", "AQVN", rf"AQVN{_W}{{35,38}}"),  # Yandex Cloud: API key
    ("digitalocean", "dop_v1_ doo_v1_ dor_v1_", rf"do[opr]_v1_{_H}{{64}}"),  # DigitalOcean API: tokens
    ("databricks", "dapi", r"dapi[a-f0-9]{32}(?:-\d)?(?![A-Za-z0-9])"),  # Databricks: personal access tokens
    ("heroku", "HRKU-", rf"HRKU-{_W}{{36,}}"),  # Heroku: API token formats
    ("fly", "fm1_ fm2_ fo1_", r"f[mo][12]_[A-Za-z0-9+/=_\-]{40,}"),  # fly.io: tokens
    ("netlify", "nfp_", rf"nfp_{_A}{{36}}"),  # Netlify: personal access tokens
    ("maxmind", "_mmk", r"(?<=[A-Za-z0-9]{6}_[A-Za-z0-9]{29})_mmk(?![A-Za-z0-9])"),  # MaxMind: license keys
    ("planetscale", "pscale_", r"pscale_(?:tkn|pw|oauth)_[A-Za-z0-9_.=\-]{32,64}"),  # PlanetScale: service tokens
    ("supabase", "sbp_ sb_secret_", rf"(?:sbp_{_H}{{40}}|sb_secret_{_W}{{20,}})"),  # Supabase: API keys
    ("scaleway", "SCW", r"SCW[A-Z0-9]{17}(?![A-Za-z0-9])"),  # Scaleway: API keys
    ("scalingo", "tk-us-", rf"tk-us-{_W}{{48}}"),  # Scalingo: API tokens
    ("clickhouse", "4b1d", rf"4b1d{_A}{{38}}(?!{_A})"),  # ClickHouse Cloud: API key secrets
    ("amazon_mws", "amzn.mws.", rf"amzn\.mws\.{_H}{{8}}-{_H}{{4}}-{_H}{{4}}-{_H}{{4}}-{_H}{{12}}"),  # Amazon Marketplace Web Service
    ("yandex_iam", "t1.", rf"t1\.{_W}{{8,}}={{0,2}}\.{_W}{{86}}={{0,2}}"),  # Yandex Cloud: IAM tokens
    ("harness", "pat. sat.", rf"[ps]at\.{_W}{{22}}\.{_A}{{24}}\.{_A}{{20}}"),  # Harness: API keys
    # code hosts, registries, builders
    ("github", "ghp_ gho_ ghu_ ghs_ ghr_", rf"gh[pousr]_{_A}{{36,255}}"),  # github.blog 2021-04-05, token formats
    ("github_fine", "github_pat_", r"github_pat_[A-Za-z0-9_]{22,255}"),
    ("gitlab", "glpat- gldt- glft- glsoat- glrt- glrtr- glptt- glagent- gloas- glimt- glffct- glcbt- glwt- GR1348941",
     r"(?:gl[a-z]{2,5}-|GR1348941)[A-Za-z0-9_.\-]{20,}"),  # docs.gitlab.com, token overview
    ("npm", "npm_", rf"npm_{_A}{{36}}"),  # github.blog 2021-09-23, npm tokens
    ("pypi", "pypi-AgE", rf"pypi-AgE{_W}{{50,}}"),  # warehouse: token scanning
    ("rubygems", "rubygems_", rf"rubygems_{_H}{{48}}"),  # guides.rubygems.org, API keys
    ("crates_io", "cio", rf"cio{_A}{{32}}(?!{_A})"),  # crates.io tokens since 2023
    ("docker", "dckr_pat_ dckr_oat_", rf"dckr_[po]at_{_W}{{27,}}"),  # Docker Hub access tokens
    ("nuget", "oy2", r"oy2[a-z0-9]{43}(?![a-z0-9])"),  # nuget.org API keys
    ("clojars", "CLOJARS_", r"CLOJARS_[a-z0-9]{60}"),  # Clojars deploy tokens
    ("artifactory", "AKCp", rf"AKCp{_A}{{69,}}"),  # JFrog API keys
    ("jfrog_reference", "cmVmdGtu", rf"cmVmdGtu{_A}{{56,}}"),  # JFrog reference tokens
    ("circleci", "CCIPAT_ CCIPRJ_", rf"CCIP(?:AT|RJ)_{_A}{{20,}}_{_H}{{40}}"),  # CircleCI tokens
    ("buildkite", "bkua_", rf"bkua_{_H}{{40}}"),  # Buildkite API tokens
    ("sonar", "squ_ sqp_ sqa_", rf"sq[upa]_{_H}{{40}}"),  # SonarQube tokens
    ("pulumi", "pul-", rf"pul-{_H}{{40}}"),  # Pulumi access tokens
    ("terraform", ".atlasv1.", rf"\.atlasv1\.{_W}{{60,}}"),  # HCP Terraform API tokens
    ("vault", "hvs. hvb. hvr.", rf"hv[sbr]\.{_W}{{24,}}"),  # HashiCorp Vault token format since 1.10
    ("vault_legacy", "s.", rf"s\.(?=[A-Za-z]*\d){_A}{{24}}(?!{_W})"),  # HashiCorp Vault service tokens before 1.10
    ("gitlab_session", "_gitlab_session=", r"_gitlab_session=[0-9a-f]{32}"),
    ("doppler", "dp.", rf"dp\.(?:pt|st|sa|ct|scim|audit)\.(?:[a-z0-9_\-]{{2,35}}\.)?{_A}{{40,44}}"),  # Doppler token formats
    ("sourcegraph", "sgp_", rf"sgp_(?:local_|{_H}{{16}}_)?{_H}{{40}}"),  # Sourcegraph access tokens
    ("octopus", "API-", r"API-[A-Z0-9]{26}(?![A-Z0-9])"),  # Octopus Deploy API keys
    ("openshift", "sha256~", rf"sha256~{_W}{{43}}"),  # OpenShift OAuth tokens
    ("prefect", "pnu_ pnb_", rf"pn[ub]_{_A}{{36}}"),  # Prefect API keys
    # models
    ("openai", "sk-", rf"sk-(?:[a-z]+[0-9]*-)?{_W}{{32,}}"),  # OpenAI, Anthropic, OpenRouter, DeepSeek: keys
    ("huggingface", "hf_ api_org_", rf"(?:hf|api_org)_{_A}{{34,}}"),  # huggingface.co: user access tokens
    ("groq", "gsk_", rf"gsk_{_A}{{40,}}"),
    ("replicate", "r8_", rf"r8_{_A}{{37}}"),
    ("langsmith", "lsv2_", rf"lsv2_(?:pt|sk)_{_H}{{32}}_{_H}{{10}}"),  # LangSmith: API keys
    ("pinecone", "pcsk_", rf"pcsk_{_W}{{40,}}"),
    ("nvidia", "nvapi-", rf"nvapi-{_W}{{60,}}"),
    ("deepinfra_langfuse", "sk-lf- pk-lf-", rf"[sp]k-lf-{_H}{{8}}-{_H}{{4}}-{_H}{{4}}-{_H}{{4}}-{_H}{{12}}"),
    ("tavily", "tvly-", rf"tvly-(?:dev-)?{_A}{{28,}}"),
    ("perplexity", "pplx-", rf"pplx-{_A}{{40,}}"),
    ("xai", "xai-", rf"xai-{_A}{{70,}}"),
    ("wakatime", "waka_", rf"waka_{_H}{{8}}-{_H}{{4}}-{_H}{{4}}-{_H}{{4}}-{_H}{{12}}"),
    ("ngrok", "1 2", rf"[12]{_A}{{26}}_{_A}{{21}}(?!{_W})"),  # ngrok: authtokens, a KSUID and a random part
    ("beamer", "b_", rf"b_{_W}{{44}}(?!{_W})"),
    ("wandb", "wandb_v1_", rf"wandb_v1_{_W}{{40,}}"),
    # messages and mail
    ("slack", "xoxb- xoxp- xoxa- xoxr- xoxs- xoxe- xoxo- xoxc- xoxd- xoxe. xapp-",
     r"(?:xoxe\.xox[bp]-|xox[a-z]-|xapp-)(?=[A-Za-z0-9%/+\-]{0,20}\d)[A-Za-z0-9%/+\-]{12,}"),  # api.slack.com, token types
    ("sendgrid", "SG.", rf"SG\.{_W}{{16,32}}\.{_W}{{16,64}}"),  # SendGrid API keys
    ("mailgun", "key-", r"key-[a-f0-9]{32}(?![A-Za-z0-9])"),  # Mailgun API keys
    ("sendinblue", "xkeysib-", rf"xkeysib-{_H}{{64}}-{_A}{{16}}"),  # Brevo API keys
    ("brevo_smtp", "xsmtpsib-", rf"xsmtpsib-{_H}{{64}}-{_A}{{16}}"),
    ("zapier_hook", "https://hooks.zapier.com/", r"https://hooks\.zapier\.com/hooks/catch/\d+/[a-z0-9]{5,}"),
    ("slack_webhook_url", "https://hooks.slack.com/", r"https://hooks\.slack\.com/(?:services|workflows|triggers)/[A-Za-z0-9+/]{30,}"),
    ("telegram_url", "/bot", rf"/bot(?P<value>\d{{8,10}}:{_W}{{34,36}})(?=/)"),  # core.telegram.org/bots/api
    # AWS Signature 4, Azure SAS
    ("signed_url", "X-Amz-Signature= X-Goog-Signature= &sig=", r"(?:X-\w+-Signature=|&sig=)(?P<value>[A-Za-z0-9%+/]{32,}={0,2})"),
    ("git_url_token", "https://", r"https://(?P<value>(?=\w{0,39}\d)[A-Za-z0-9_]{32,100})@(?!o\d+\.ingest)(?![\w.]*sentry)"),
    ("mailersend", "mlsn.", rf"mlsn\.{_H}{{60,}}"),
    # Discord: execute webhook
    ("discord_webhook", "https://discord", rf"https://discord(?:app)?\.com/api/webhooks/\d{{15,22}}/{_W}{{50,}}"),
    ("teams_webhook", ".webhook.office.com/", r"\.webhook\.office\.com/webhookb2/[A-Za-z0-9@\-]{40,}/IncomingWebhook/[A-Za-z0-9/\-]{40,}"),
    ("slack_webhook", "hooks.slack.com/", r"hooks\.slack\.com/(?:services|workflows|triggers)/[A-Za-z0-9+/]{30,}"),  # Slack webhooks
    # money
    ("stripe", "sk_live_ rk_live_ sk_test_ rk_test_ sk_prod_ rk_prod_", rf"[sr]k_(?:live|test|prod)_{_A}{{10,}}"),  # stripe.com/docs/keys
    ("stripe_webhook", "whsec_", r"whsec_[A-Za-z0-9+/=]{24,}"),
    ("square", "sq0atp- sq0csp- sq0idp-", rf"sq0(?:atp|csp|idp)-{_W}{{22,}}"),  # Square: access tokens
    ("square_token", "EAAA", rf"EAAA{_W}{{60}}(?!{_W})"),
    ("shopify", "shpat_ shpca_ shppa_ shpss_", rf"shp(?:at|ca|pa|ss)_{_H}{{32}}"),  # shopify.dev, token prefixes
    ("plaid", "access-", rf"access-(?:sandbox|development|production)-{_H}{{8}}-{_H}{{4}}-{_H}{{4}}-{_H}{{4}}-{_H}{{12}}"),
    ("braintree", "access_token$", rf"access_token\$(?:production|sandbox)\${_A}{{16}}\${_H}{{32}}"),
    ("flutterwave", "FLWSECK", rf"FLWSECK(?:_TEST)?-{_A}{{12,}}(?:-X)?"),
    ("easypost", "EZAK EZTK", rf"EZ[AT]K{_A}{{54}}"),
    ("shippo", "shippo_live_ shippo_test_", rf"shippo_(?:live|test)_{_H}{{40}}"),
    ("duffel", "duffel_live_ duffel_test_", rf"duffel_(?:live|test)_{_W}{{43}}"),
    ("lob", "live_ test_", rf"(?:live|test)_(?:pub_)?{_H}{{31,35}}(?!{_A})"),  # Lob: API keys
    ("gocardless", "live_", rf"live_{_W}{{40}}(?!{_W})"),
    ("razorpay", "rzp_live_ rzp_test_", rf"rzp_(?:live|test)_{_A}{{14,}}"),
    ("paystack", "sk_live_ sk_test_", rf"sk_(?:live|test)_{_H}{{40}}"),
    ("settlemint", "sm_aat_ sm_pat_ sm_sat_", rf"sm_[aps]at_{_A}{{16}}"),  # SettleMint: access tokens
    ("xendit", "xnd_", rf"xnd_(?:production|development)_{_W}{{40,}}"),
    # work tools
    ("atlassian", "ATATT3 ATCTT3 ATBB", rf"AT(?:[AC]TT3[A-Za-z0-9_=\-]{{100,}}|BB{_A}{{24,32}})"),  # Atlassian API tokens
    ("linear", "lin_api_ lin_oauth_", rf"lin_(?:api|oauth)_{_A}{{32,}}"),
    ("adobe", "p8e-", rf"p8e-{_A}{{32}}"),  # Adobe: client secrets
    ("authress", "sc_ ext_ scauth_ authress_",
     r"(?:sc|ext|scauth|authress)_[a-z0-9]{5,30}\.[a-z0-9]{4,6}\.acc[_\-][a-z0-9\-]{10,32}\.[A-Za-z0-9+/_=\-]{30,120}"),
    ("defined_networking", "dnkey-", rf"dnkey-{_W}{{26}}-{_W}{{52}}"),
    ("frame_io", "fio-u-", rf"fio-u-{_W}{{64}}"),
    ("intra42", "s-s4t2ud- s-s4t2af-", rf"s-s4t2(?:ud|af)-{_H}{{64}}"),
    ("clickup", "pk_", r"pk_\d{6,9}_[A-Z0-9]{32}"),
    ("trello", "ATTA", rf"ATTA{_H}{{72}}"),
    ("nkey", "SU SA SO SN SC SX", r"S[UAONCX][A-Z2-7]{56}(?![A-Za-z0-9])"),  # NATS: nkeys, seeds
    ("freemius", "sk_", r"sk_[A-Za-z0-9!#$%&()*+,\-.:;<=>?@\[\]^_{|}~]{29}(?=[\"'])"),
    ("instagram", "IGQV", rf"IGQV{_W}{{100,}}"),
    ("bitbucket_http", "BBDC-", r"BBDC-[NMO][A-Za-z0-9+/]{43}"),
    ("notion", "secret_ ntn_", rf"(?:secret_{_A}{{43}}|ntn_{_A}{{40,}})(?!{_A})"),
    ("figma", "figd_", rf"figd_{_W}{{40,}}"),
    ("airtable", "pat", rf"pat{_A}{{14}}\.[a-f0-9]{{64}}"),
    ("asana", "1/", r"1/\d{15,}:[a-f0-9]{32}"),
    ("postman", "PMAK-", rf"PMAK-{_H}{{24}}-{_H}{{34}}"),
    ("typeform", "tfp_", r"tfp_[A-Za-z0-9_.=\-]{40,}"),
    ("contentful", "CFPAT-", rf"CFPAT-{_W}{{43}}"),
    ("hubspot", "pat-na1- pat-eu1-", rf"pat-(?:na|eu)1-{_H}{{8}}-{_H}{{4}}-{_H}{{4}}-{_H}{{4}}-{_H}{{12}}"),
    ("readme", "rdme_", r"rdme_[a-z0-9]{70}"),
    ("onepassword", "ops_eyJ", r"ops_eyJ[A-Za-z0-9+/]{200,}={0,3}"),
    ("onepassword_key", "A3-", r"A3-[A-Z0-9]{6}-(?:[A-Z0-9]{11}|[A-Z0-9]{6}-[A-Z0-9]{5})(?:-[A-Z0-9]{5}){3}"),
    ("dropbox", "sl.", rf"sl\.(?:u\.)?{_W}{{130,}}"),
    ("facebook", "EAACEdEose0cBA EAA", rf"EAA[A-Z]{_A}{{60,}}"),
    ("twitter_bearer", "AAAAAAAAAAAAAAAAAAAAA", r"A{21,22}[A-Za-z0-9%]{60,}"),
    ("mapbox", "sk.eyJ", rf"sk\.eyJ{_W}{{60,}}\.{_W}{{22}}"),
    # watching and running
    ("newrelic", "NRAK- NRII- NRJS- NRRA-", rf"NR(?:AK|II|JS|RA)-{_W}{{19,}}"),
    ("grafana", "glc_ glsa_", rf"gl(?:c_[A-Za-z0-9+/]{{32,}}={{0,3}}|sa_{_A}{{32}}_{_H}{{8}})"),
    ("sentry", "sntrys_ sntryu_", rf"sntry(?:s_eyJ[A-Za-z0-9+/=_\-]{{40,}}|u_{_H}{{64}})"),
    ("dynatrace", "dt0c01. dt0s01.", r"dt0[cs]01\.[A-Z0-9]{24}\.[A-Z0-9]{64}"),
    ("launchdarkly", "sdk- api- mob-", rf"(?:sdk|api|mob)-{_H}{{8}}-{_H}{{4}}-4{_H}{{3}}-{_H}{{4}}-{_H}{{12}}"),
    ("tailscale", "tskey-", rf"tskey-(?:[a-z]+-)?{_W}{{16,}}"),
    ("infracost", "ico-", rf"ico-{_A}{{32}}(?!{_A})"),
    ("cloudflare_origin", "v1.0-", rf"v1\.0-{_H}{{24}}-{_H}{{146}}"),
    # keys with a text form
    ("age_key", "AGE-SECRET-KEY-1", r"AGE-SECRET-KEY-1[QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L]{58}"),  # age: native X25519 identities
    ("jwt", "eyJ",
     rf"(?<![\w\-])eyJ{_W}{{8,}}\.(?:eyJ{_W}{{8,}}\.{_W}{{10,}}|{_W}*(?:\.{_W}+){{3}})"),  # RFC 7519: JWS; RFC 7516: JWE
    ("jwt_base64", "ZXlK", r"ZXlK[A-Za-z0-9+/\-_]{40,}={0,2}"),  # a JWT in another layer of base64
    ("grafana_legacy", "eyJrIjoi", r"eyJrIjoi[A-Za-z0-9+/]{60,}={0,3}"),  # Grafana API keys before 9
    ("bcrypt", "$2a$ $2b$ $2y$", r"\$2[aby]\$\d\d\$[./A-Za-z0-9]{53}"),  # modular crypt format
    ("sha_crypt", "$5$ $6$ $1$ $y$ $argon2", r"\$(?:[156y]|argon2(?:id|i|d))\$[A-Za-z0-9./$=,+]{25,}"),
)
# fmt: on

MIN_ENTROPY = 2.8  # bits per character: 16 random base-32 characters stay above, `xxxx`, `1234...` repeated stay below
_UNLIKE_A_WORD = words(  # prefixes that also begin names of classes, packages and styles
    "openai tailscale scaleway octopus crates_io onepassword_key alibaba_key slack npm notion gitlab sendgrid vault"
)
_HEADS = {"azure_client_secret": 3, "maxmind": 36}  # characters of the secret before the part that never changes


class _Rule(NamedTuple):
    name: str
    prefixes: tuple[bytes, ...]
    pattern: re.Pattern[str]
    in_run: bool  # the prefix itself stands in a run of token characters


def _rule(name: str, prefixes: str, pattern: str) -> list[_Rule]:
    heads = [prefix.encode() for prefix in prefixes.split()]
    inside = [head for head in heads if re.fullmatch(rb"[\w-]+", head)]
    outside = [head for head in heads if head not in inside]
    compiled = re.compile(pattern)
    return [_Rule(name, tuple(group), compiled, group is inside) for group in (inside, outside) if group]


_RULES = [rule for row in TOKENS for rule in _rule(*row)]


_IN_RUNS: dict[bytes, list[_Rule]] = {}
_ANYWHERE: dict[bytes, list[tuple[bytes, _Rule]]] = {}
for _one in _RULES:
    for _prefix in _one.prefixes:
        if _one.in_run:
            _IN_RUNS.setdefault(_prefix, []).append(_one)
        else:
            _ANYWHERE.setdefault(_prefix.lower(), []).append((_prefix, _one))
learn(_ANYWHERE, _IN_RUNS)


def find_tokens(source: Source) -> Iterator[Finding]:
    """Every token of a known format."""
    for literal in source.present(_ANYWHERE, _IN_RUNS):
        for rule in _IN_RUNS.get(literal, ()):
            yield from _tokens(source, rule, literal, source.in_runs(literal))
        for prefix, rule in _ANYWHERE.get(literal, ()):
            yield from _tokens(source, rule, prefix, source.everywhere(prefix))


def _tokens(source: Source, rule: _Rule, prefix: bytes, places: Iterator[int]) -> Iterator[Finding]:
    end = 0
    for at in places:
        if at < end or not _starts_here(source.raw, at):
            continue
        match = rule.pattern.match(source.text, at)
        if match is None:
            continue
        end = match.end()  # also past one that is not real: nothing is looked at twice
        if not _is_real(rule.name, match.group(), len(prefix)):
            source.stay(at, end, rule.name, "a placeholder, words or a public example")
        elif "value" in rule.pattern.groupindex:
            yield Finding(*match.span("value"), "secret", rule.name)
        else:
            yield Finding(at - _HEADS.get(rule.name, 0), end, "secret", rule.name)


_BLOB = re.compile(rb"(?=[A-Za-z0-9+/]*\d)(?=[A-Za-z0-9+/]*[A-Z])[A-Za-z0-9+/]{11}[+/]\Z")
_WORD = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")


def _starts_here(raw: bytes, at: int) -> bool:
    """Whether a token can begin at an offset: not inside a word, unless the letter before belongs to an escape such as \\n."""
    if at and raw[at - 1] in b"+/" and _BLOB.search(raw, max(0, at - 12), at):
        return False
    if at == 0 or raw[at] not in _WORD or raw[at - 1] not in _WORD:
        return True
    return (raw[at - 1] in b"nrt" and raw[at - 2 : at - 1] == b"\\") or raw[at : at + 3] == b"8Q~"


def _is_real(name: str, token: str, prefix: int) -> bool:
    if entropy(token[prefix:]) < MIN_ENTROPY or is_public_example(token):
        return False
    return name not in _UNLIKE_A_WORD or (any(map(str.isdigit, token[prefix:])) and not is_wordy(token[prefix:]))
