"""Which vendors give out which tokens: the prefix, alphabet and length of each, public facts of their documentation.

In:  nothing
Out: VENDORS, and the contexts in which a token of theirs stands in code

A line of TOKENS is: the vendor's name, what the value is called, its shape in the language of `template`. A vendor whose
token has no prefix is known by its name alone.
"""

from __future__ import annotations

from typing import NamedTuple

from phase1_data.labelled.template import SLOT

TOKENS = r"""
1password | secret key | A¦3-{~u6}-{~u6}-{~u5}-{~u5}-{~u5}-{~u5}
1password | service account token | op¦s_ey¦J{~w260}
adafruit | io key | ai¦o_{~w28}
adafruit | api key | {~l32}
adobe | client secret | p8¦e-{~l32}
age | secret key | AGE-SEC¦RET-KEY-1{~q58}
airtable | api key | key{~w14}
airtable | access token | pat{~w14}.{~h64}
algolia | admin key | {~h32}
alibaba | access key id | LT¦AI{~w20}
alibaba | secret key | {~l30}
amplitude | secret key | {~h32}
anthropic | api key | sk-an¦t-api03-{~s93}AA
anthropic | admin key | sk-an¦t-admin01-{~s93}AA
apify | token | apify_a¦pi_{~w36}
artifactory | api key | AK¦Cp{~w69}
artifactory | reference token | cmV¦md{~w59}
asana | client secret | {~h32}
asana | access token | 1/{~d16}:{~h32}
assemblyai | api key | {~h32}
atlassian | api token | AT¦ATT3{~s178}={~H8}
atlassian | token | {~l24}
auth0 | client secret | {~s64}
aws | access key id | AK¦IA{~216}
aws | session key id | AS¦IA{~216}
aws | secret access key | {~b40}
aws | mws token | amzn.mw¦s.{~uuid}
aws | bedrock key | AB¦SK{~b128}
azure | client secret | {~w3}8¦Q~{~s34}
azure | storage account key | {~base64:64}
azure devops | pat | {~l52}
azure openai | api key | {~h32}
azure search | admin key | {~w52}
beamer | api token | b_{~s44}
bitbucket | app password | AT¦BB{~w32}
bitbucket | client secret | {~s64}
bitly | access token | {~h40}
bittrex | secret key | {~h32}
brevo | api key | xkey¦sib-{~h64}-{~w16}
brevo | smtp key | xsmt¦psib-{~h64}-{~w16}
bugsnag | api key | {~h32}
buildkite | registration token | bk¦ua_{~h40}
bunny | access key | {~uuid}
censys | api secret | {~w32}
cerebras | api key | cs¦k-{~l48}
circleci | personal token | CCI¦PAT_{~w22}_{~h40}
circleci | api token | {~h40}
clickhouse | key secret | 4b¦1d{~w38}
clojars | deploy token | CLOJ¦ARS_{~h60}
cloudflare | api token | {~s40}
cloudflare | global api key | {~h37}
cloudflare | origin ca key | v1.¦0-{~h24}-{~h146}
cloudinary | api secret | {~s27}
codecov | upload token | {~uuid}
codeclimate | reporter id token | {~h64}
cohere | api key | {~w40}
coinbase | api secret | {~s64}
confluent | api secret | {~b64}
contentful | management token | CF¦PAT-{~s43}
contentful | delivery token | {~s43}
coveralls | repo token | {~w32}
crates io | token | ci¦o{~w32}
databricks | token | dap¦i{~h32}
datadog | api key | {~h32}
datadog | app key | {~h40}
deepgram | api key | {~h40}
deepseek | api key | s¦k-{~h32}
defined networking | key | dnk¦ey-{~u26}-{~u52}
digitalocean | token | dop_¦v1_{~h64}
digitalocean | oauth token | doo_¦v1_{~h64}
digitalocean | spaces secret | {~b43}
discord | bot token | M{~w23}.{~s6}.{~s38}
discord | client secret | {~s32}
discord | token | {~h64}
docker hub | pat | dckr_¦pat_{~s27}
doppler | token | dp.p¦t.{~w43}
doppler | service token | dp.s¦t.prd.{~w43}
drone | token | {~w32}
dropbox | app secret | {~l15}
dropbox | access token | s¦l.{~s135}
duffel | token | duffel_¦test_{~s43}
dynatrace | api token | dt0¦c01.{~u24}.{~u64}
easypost | api key | EZ¦AK{~w54}
easypost | test key | EZ¦TK{~w54}
elastic | api key | {~base64:45}
elevenlabs | api key | s¦k_{~h48}
etsy | api key | {~l24}
facebook | app secret | {~h32}
facebook | page token | EA¦AC{~w150}
facebook | access token | {~d16}¦|{~s27}
fastly | api token | {~s32}
figma | token | fig¦d_{~s40}
finicity | client secret | {~w20}
finnhub | token | {~l20}
firebase | server key | AAAA{~w7}:AP¦A91b{~s134}
flickr | secret | {~h16}
flutterwave | secret key | FLW¦SECK_TEST-{~h32}-X
fly io | api token | fo¦1_{~s43}
frame io | token | fio-¦u-{~s64}
freshbooks | access token | {~h64}
freshdesk | api key | {~w20}
ghost | admin api key | {~h24}:{~h64}
github | token | gh¦p_{~w36}
github | oauth token | gh¦o_{~w36}
github | app token | gh¦s_{~w36}
github | user token | gh¦u_{~w36}
github | refresh token | gh¦r_{~w76}
github | fine grained pat | github_¦pat_{~w22}_{~w59}
gitlab | token | glp¦at-{~s20}
gitlab | runner token | gl¦rt-{~s20}
gitlab | deploy token | gld¦t-{~s20}
gitlab | pipeline trigger token | glp¦tt-{~h40}
gitlab | feed token | gl¦ft-{~s20}
gitlab | kubernetes token | glag¦ent-{~s50}
gitter | access token | {~h40}
gocardless | access token | live_¦{~s40}
google | api key | AI¦za{~s35}
google | client secret | GOC¦SPX-{~s28}
google | refresh token | 1¦//0{~s100}
google | access token | ya2¦9.a0{~s120}
google recaptcha | secret key | 6L{~w6}AAAAA{~s27}
grafana | service account token | gl¦sa_{~w32}_{~h8}
grafana | cloud token | gl¦c_eyJv{~w80}
groq | api key | gs¦k_{~w52}
harness | pat | pa¦t.{~w22}.{~h24}.{~w20}
hashicorp | terraform token | {~w14}.atl¦asv1.{~s67}
heroku | api key | {~uuid}
heroku | platform key | HRK¦U-AA{~s58}
honeycomb | api key | {~w22}
hubspot | private app token | pat-¦na1-{~uuid}
hubspot | api key | {~uuid}
huggingface | token | h¦f_{~a34}
huggingface | org token | api_¦org_{~a34}
infracost | api key | ic¦o-{~w32}
infura | project secret | {~h32}
intercom | access token | {~base64:45}
ipinfo | token | {~h14}
jenkins | api token | 11{~h32}
jfrog | identity token | {~l64}
jfrog | api key | {~w73}
jira | api token | {~w24}
jumpcloud | api key | {~h40}
jwt | signing secret | {~w48}
keen | write key | {~h64}
kraken | private key | {~base64:64}
kucoin | api secret | {~uuid}
langfuse | secret key | sk-¦lf-{~uuid}
langsmith | api key | lsv¦2_pt_{~h32}_{~h10}
launchdarkly | sdk key | sdk-{~uuid}
line | channel access token | {~base64:120}
linear | api key | lin_¦api_{~w40}
linkedin | client secret | {~w16}
linode | token | {~h64}
lob | api key | live_¦{~h35}
logdna | ingestion key | {~h32}
loggly | customer token | {~uuid}
mailchimp | api key | {~h32}-us{~n:1,21}
mailgun | api key | ke¦y-{~h32}
mailgun | signing key | {~h32}-{~h8}-{~h8}
mailjet | secret key | {~h32}
mandrill | api key | md-{~s22}
mapbox | secret token | s¦k.ey¦J{~w80}.{~s22}
mattermost | token | {~l26}
maxmind | license key | {~w6}_{~w29}_mm¦k
meraki | dashboard key | {~h40}
messagebird | access key | {~w25}
microsoft teams | client secret | {~w3}7¦Q~{~s34}
mistral | api key | {~w32}
mixpanel | api secret | {~h32}
mongodb atlas | private key | {~uuid}
netlify | token | nf¦p_{~w36}
netlify | access token | {~s43}
new relic | user key | NRA¦K-{~u27}
new relic | insert key | NRI¦I-{~s32}
new relic | license key | {~h36}NR¦AL
ngrok | authtoken | 2{~w26}_{~w21}
notion | token | nt¦n_{~d11}{~w35}
notion | integration secret | secr¦et_{~w43}
npm | token | np¦m_{~w36}
nuget | api key | oy¦2{~l43}
nvidia | api key | nvap¦i-{~s64}
nytimes | api key | {~w32}
octopus | api key | API¦-{~u26}
okta | api token | 0¦0{~s40}
openai | api key | s¦k-{~w20}T3Blb¦kFJ{~w20}
openai | project key | sk-p¦roj-{~s74}T3Blb¦kFJ{~s74}
openrouter | api key | sk-o¦r-v1-{~h64}
openshift | token | sha25¦6~{~s43}
openweather | api key | {~h32}
opsgenie | api key | {~uuid}
paddle | api key | pdl_¦live_apikey_{~l26}_{~w22}_{~w3}
pagerduty | token | u+{~w18}
pagerduty | integration key | {~h32}
paypal | client secret | E{~s79}
paystack | secret key | sk_¦live_{~h40}
percy | token | {~h64}
perplexity | api key | ppl¦x-{~w48}
pinecone | api key | pcs¦k_{~w5}_{~w63}
pinecone | key | {~uuid}
pipedrive | api token | {~h40}
plaid | secret | {~h30}
plaid | access token | access-¦sandbox-{~uuid}
planetscale | token | pscale_¦tkn_{~s43}
planetscale | password | pscale_¦pw_{~s43}
posthog | personal key | ph¦x_{~w43}
postman | api key | PMA¦K-{~h24}-{~h34}
postmark | server token | {~uuid}
prefect | api key | pn¦u_{~w36}
pulumi | access token | pu¦l-{~h40}
pusher | app secret | {~h20}
pypi | token | py¦pi-AgEI¦cHlwaS5vcmc{~s140}
quay | oauth token | {~w40}
rapidapi | key | {~w10}msh{~w15}p1{~w6}jsn{~w12}
razorpay | key secret | {~w24}
readme | api key | rdm¦e_{~l70}
replicate | api token | r¦8_{~w37}
resend | api key | r¦e_{~w8}_{~w24}
rollbar | access token | {~h32}
rubygems | api key | rubygems_{~h48}
salesforce | consumer secret | {~H64}
scaleway | secret key | {~uuid}
scalingo | token | tk-¦us-{~s48}
segment | write key | {~w32}
sendbird | api token | {~h40}
sendgrid | api key | S¦G.{~s22}.{~s43}
sentry | auth token | sntr¦yu_{~h64}
sentry | token | {~h64}
shippo | token | shippo_¦live_{~h40}
shodan | api key | {~w32}
shopify | access token | shp¦at_{~h32}
shopify | shared secret | shp¦ss_{~h32}
shopify | custom token | shp¦ca_{~h32}
slack | bot token | xox¦b-{~d12}-{~d12}-{~w24}
slack | user token | xox¦p-{~d12}-{~d12}-{~d12}-{~h32}
slack | app token | xap¦p-1-A{~u10}-{~d13}-{~h64}
slack | signing secret | {~h32}
snyk | token | {~uuid}
sonar | token | sq¦p_{~h40}
sonarcloud | login | {~h40}
sourcegraph | access token | sg¦p_{~h40}
spotify | client secret | {~h32}
square | access token | sq0¦atp-{~s22}
square | oauth secret | sq0¦csp-{~s43}
stability | api key | s¦k-{~w48}
statuspage | api key | {~uuid}
stripe | secret key | sk_¦live_{~w24}
stripe | test key | sk_¦test_{~w99}
stripe | restricted key | rk_¦live_{~w24}
stripe | webhook secret | whs¦ec_{~w32}
sumologic | access key | {~w64}
supabase | service key | sb_¦secret_{~s22}_{~s8}
supabase | access token | sb¦p_{~h40}
tailscale | auth key | tskey-¦auth-{~w12}-{~w32}
tavily | api key | tv¦ly-{~w32}
telegram | bot token | {~d10}:A¦A{~s33}
together | api key | {~h64}
travis | api token | {~s22}
trello | api token | {~h64}
twilio | auth token | {~h32}
twilio | api key | S¦K{~h32}
twitch | client secret | {~l30}
twitter | api secret | {~w50}
twitter | access token | {~d19}-{~w40}
twitter | bearer token | AAAAAAAAAAAAAAAAAAAAAA{~w90}
typeform | token | tf¦p_{~w44}_{~w14}
unsplash | secret key | {~s43}
upstash | redis token | A{~b51}==
vault | token | hv¦s.{~s95}
vault | root token | s¦.{~w24}
vault | batch token | hv¦b.{~s140}
vercel | token | {~w24}
virustotal | api key | {~h64}
vultr | api key | {~u36}
wakatime | api key | wak¦a_{~uuid}
webflow | token | {~h64}
weights biases | api key | {~h40}
xai | api key | xa¦i-{~w80}
yandex | api key | AQ¦VN{~s36}
yandex | aws secret | YC{~s38}
youtube | api key | AI¦zaSy{~s33}
zapier | webhook secret | {~w32}
zendesk | secret key | {~w40}
zoom | client secret | {~w32}
"""

# `{~camel}` and the like are forms of the vendor's name with the name of the value; `{~vendor}` is the name alone.
NAMED = r"""
@@ src/config.py
{~snake} = "{=value}"
{~UPPER} = '{=value}'
self.{~snake} = "{=value}"
config["{~snake}"] = '{=value}'
os.environ["{~UPPER}"] = "{=value}"
client = {~Vendor}Client({~snake}="{=value}", timeout=30)
@@ src/settings.js
const {~camel} = '{=value}';
  {~camel}: "{=value}",
process.env.{~UPPER} = "{=value}";
module.exports.{~camel} = `{=value}`
export const {~UPPER} = process.env.{~UPPER} || '{=value}'
@@ cmd/main.go
	{~camel} := "{=value}"
var {~camel} string = "{=value}"
	{~camel} := `{=value}`
const {~Pascal} = "{=value}"
@@ src/main/java/App.java
String {~camel} = "{=value}";
System.setProperty("{~UPPER}", "{=value}");
private static final String {~UPPER} = "{=value}";
@@ src/Startup.cs
var {~camel} = @"{=value}";
public const string {~Pascal} = "{=value}";
@@ config/app.php
'{~snake}' => '{=value}',
define('{~UPPER}', '{=value}');
${~camel} .= "{=value}"
@@ lib/client.rb
{~Vendor}.{~keyword} = "{=value}"
{~UPPER} => "{=value}"
:{~snake} => '{=value}',
@@ .env
{~UPPER}={=value}
{~UPPER}="{=value}"
{~vendor}_{~KEYWORD}={=value}
@@ config/settings.yml
{~snake}: {=value}
{~kebab}: "{=value}"
  {~snake}: '{=value}'
@@ config.json
{"{~camel}": "{=value}"}
  "{~snake}": "{=value}",
{"config.ini": "{~UPPER}={=value}\nBACKUP=true"}
@@ Web.config
<add key="{~Pascal}" value="{=value}" />
<{~camel}>{=value}</{~camel}>
@@ app.properties
{~dotted}={=value}
{~kebab} = {=value}
@@ Makefile
{~UPPER} := "{=value}"
{~UPPER} ?= "{=value}"
{~UPPER} ::= "{=value}"
@@ deploy.sh
export {~UPPER}={=value}
./deploy --{~kebab}={=value} --region eu
docker run -e {~UPPER}={=value} -p 80:80 app
@@ terraform.tfvars
{~snake} = "{=value}"
@@ notes.md
{~Vendor} {~keywords}: {=value}
The {~Vendor} {~keywords} is `{=value}`
@ pom.xml
<{~camel}>
    {=value}
</{~camel}>
@ values.yaml
env:
  - name: {~UPPER}
    value: "{=value}"
@ src/params.py
PARAMS = {
    "{~snake}":
        "{=value}",
}
"""

# What a prefix gives away needs no name.
BARE = r"""
@@ src/auth.py
headers = {"Authorization": "Bearer {=value}"}
# old one, revoke: {=value}
send("{=value}")
@@ app.log
INFO 2024-03-08 sent with {=value} in 31 ms
request failed: invalid credentials ({=value})
@@ fetch.sh
curl -H "Authorization: Bearer {=value}" https://{~host}/v1/items
curl "https://{~host}/v1/items?limit=10&key={=value}"
echo {=value} | login --stdin
@@ .env
VALUE={=value}
@@ fixtures/data.csv
{~n:1,99},{~word},{=value},active
@@ src/index.ts
const client = new Client('{=value}')
// {=value}
"""


class Vendor(NamedTuple):
    name: str
    keyword: str
    shape: str

    @property
    def prefixed(self) -> bool:
        return len(SLOT.sub("", self.shape)) > 1

    def forms(self) -> dict[str, str]:
        """The ways to write the name of the value."""
        vendor, keyword = self.name.split(), self.keyword.split()
        words = [*vendor, *keyword]
        pascal = "".join(word.capitalize() for word in words)
        return {
            "snake": "_".join(words), "UPPER": "_".join(words).upper(), "kebab": "-".join(words), "dotted": ".".join(words),
            "Pascal": pascal, "camel": words[0] + "".join(word.capitalize() for word in words[1:]),
            "vendor": "".join(vendor), "Vendor": "".join(word.capitalize() for word in vendor),
            "keyword": "_".join(keyword), "KEYWORD": "_".join(keyword).upper(), "keywords": " ".join(keyword),
        }  # fmt: skip


VENDORS = [Vendor(*(part.strip() for part in line.split(" | ", 2))) for line in TOKENS.strip().split("\n")]
