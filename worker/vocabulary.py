"""English words in earnings calls: which are vacuous, which are generic, and which belong together.

The lists are maintained by hand. Words are compared by their stems, so each list needs only one form of a word.
"""

from functools import cache
from threading import Lock

import snowballstemmer

_stemmer = snowballstemmer.stemmer("english")
_stemming = Lock()
"""A stemmer stores the word that it works on, and a checkpoint is made in a thread while answers are read."""


@cache
def stem(word: str) -> str:
    """The stem of a word in lower case: "pricing", "prices" and "priced" have the same one."""
    with _stemming:
        return _stemmer.stemWord(word)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _stems(text: str) -> frozenset[str]:
    return frozenset(map(stem, text.split()))


FUNCTION_WORDS = _words(
    """
    a about across after against all along also amid among an and any are around as at be because been before being
    between both but by can could despite do does during each few for from further had has have he her here his how
    if in into is it its itself just less like many may more most much no nor not now of off on one only or our out
    over own per same several she should since so some still such than that the their them then there these they
    this those through to too toward towards two under until up us versus very via vs was we were what when where
    whether which while who whose why will with within without would yet you your s
    """
)

VACUOUS = _stems(
    """
    achievement action activity actual agenda analysis annual answer area aspect background basic business call
    challenge change comment commentary commitment communication company comparison concern conclusion condition
    conference consideration content context core corporate corporation current detail different direction
    discussion dynamic effect effort element enterprise entity environment essential evaluation event excellence
    exciting executive explanation fact factor finance financial firm focus fundamental future general goal good
    great group happen highlight idea impact important industry info information initiative insight interesting
    introduction issue item key landscape latest lead leader main major matter message metric miscellaneous mission
    momentum name news note objective observation operate opportunity organization organizational other outcome
    overall overview part past people perform performance period perspective picture point positive potential
    presentation primary prior priority problem progress prospect quarter quarterly question real recap recent
    related relation remark report result review role section sector significant situation snapshot solid solution
    some stage state statement status story strategic strategy strength strong subject success successful summary
    synopsis takeaway talk team theme thing thought time today topic track trajectory transcript trend type
    understanding unknown untitled update value various view vision way weak work world year first second third
    fourth last next half full
    """
)
"""Words that fit nearly any topic of any call. A name that consists of them is vacuous."""

VACUOUS_ELSEWHERE = _words(
    """
    aktualisierung allgemein allgemeine ausblick bericht entwicklung ergebnis ergebnisse finanzen finanzergebnisse
    firma geschäft geschäfte geschäftsentwicklung geschäftsergebnisse geschäftsupdate leistung quartal strategie
    unternehmen unternehmensergebnisse unternehmensleistung unternehmensupdate überblick zusammenfassung
    activité activités actualité affaires aperçu entreprise finances financière financiers général générale jour mise
    performance performances perspectives résultat résultats résumé société stratégie trimestre
    actividad actualización compañía desempeño empresa finanzas financieros general información negocio negocios
    perspectivas rendimiento resultado resultados resumen trimestre
    aggiornamento azienda attività desempenho empresarial finanziari negócio negócios panoramica prestazioni resumo
    risultati risultato società strategia
    à auf d das de del della den der des di die du e el en et für i il im l la las le les los o sur und von y über
    """
)
"""The same in German, French, Spanish, Italian and Portuguese, with the words that join them."""

VACUOUS_SIGNS = _words(
    """
    本公司 公司 企业 集团 业务 业绩 经营 运营 营运 财务 更新 情况 概况 概述 概要 总结 摘要 表现 发展 季度 本季 年度
    报告 介绍 说明 主题 重点 亮点 要点 战略 策略 展望 未来 整体 总体 主要 重要 关键 信息 动态 进展 状况 结果
    管理 计划 讨论 分析 评论 话题 内容 问题 其他 相关 最新 我们 一般 商业 的 与 和 及
    当社 会社 企業 事業 業績 財務 決算 状況 報告 四半期 今後 戦略 全体 結果 業務 の と について
    회사 기업 사업 실적 개요 업데이트 현황 보고 재무 분기 전망 전략 요약 결과 주요 및 의
    """
)
"""The same in Chinese, Japanese and Korean, which may join words without blanks."""

DIRECTIONS = _stems(
    """
    acceleration addition additional advance aggressive ahead balance better boost bolster build compression
    continue continuation contraction control decline decrease deceleration delay deployment deterioration
    development discipline drive driver drop early enhance enhancement execution expand expansion expectation
    experience fall fast favorable flat fluctuation gain grow growth guidance headwind high improve improvement
    increase large launch level loss low maintain management mix moderate moderation narrow need negative net new
    normalization offset ongoing operating operation operational optimization outlook pace plan planning position
    pressure process push quality raise ramp record recovery reduce reduction resilience rise scale shift slow
    slowdown small soft softness stability stable steady structure support sustain system tailwind target temporary
    timeline timing transformation transition turnaround uncertainty uptick volatile volatility weaken weakness
    widen working long short term multi
    """
)
"""Words for changes and actions. They say nothing without a subject."""

BROAD = _stems(
    """
    asset base capability capacity capital cash client consumer cost customer delivery demand earnings economy
    economic efficiency expense global income international investment investor leadership local margin market
    offering order partner portfolio product production productivity profit profitability profitable program project
    rate resource return revenue risk sale segment service shareholder spend spending stakeholder stock technology
    turnover unit volume
    """
)
"""Subjects of nearly every call. They say something only together with a word for a change."""

_CONCEPTS = """
    labor labour wage salary payroll staff employee workforce worker headcount hire hiring recruit apprentice
        overtime union unionized talent personnel compensation technician nurse attrition retention turnover job
        crew staffing pay human shortage contract apprenticeship manpower people skilled bonus;
    currency currencies exchange fx foreign dollar euro yen pound sterling peso renminbi yuan devaluation
        translation hedge appreciation depreciation rate spot hedging constant conversion monetary;
    buyback repurchase dividend payout shareholder shareholders stockholder distribution yield authorization
        return stock per;
    debt borrowing borrow leverage leveraged deleveraging refinance refinancing note bond maturity credit
        covenant revolver lender indebtedness loan financing interest liquidity balance sheet indebted solvency
        repay repayment funding fund;
    loan lend lending mortgage borrower origination bank banking deposit credit refinance funding yield branch;
    rate rates yield interest fed basis libor deposit nim spread spreads;
    nonperforming asset problem bad delinquency delinquent default chargeoff chargeoffs provision allowance
        foreclosure foreclosed repossessed impairment impaired writeoff writedown troubled credit criticized
        loss reserve nonaccrual workout;
    acquisition acquire acquirer merger merge takeover integration integrate buyout deal transaction synergy
        synergies purchase combine combined combination saving accretive accretion close acquired;
    divestiture divest disposal dispose spinoff sale sold exit discontinued separation separate;
    online ecommerce digital internet web website mobile omnichannel app commerce click channel site shopping
        platform conversion device smartphone download;
    store shop retail retailer shopper traffic mall merchandise apparel boutique outlet basket ticket checkout
        brick mortar comparable comp comps consumer sale footwear loyalty shopping;
    restaurant dining diner menu franchise franchisee meal kitchen eatery delivery unit lunch breakfast beverage
        qsr food;
    home house housing residential homebuilder homeowner builder homebuyer homebuilding community lot property
        construction dwelling apartment condo household;
    property properties building estate lease tenant rent rental occupancy landlord reit office apartment tower
        mall space leasing;
    hotel room lodging occupancy revpar booking guest hospitality traveler travel convention leisure group
        vacation;
    travel traveler passenger airline flight cruise tourism tourist airfare fare;
    tax taxation taxable deduction irs deferred;
    regulation regulator regulatory rule law legislation compliance fda approval commission government governor
        policy legislative reimbursement mandate medicare medicaid tariff antitrust regulated case filing order
        approve permit license legal ferc;
    litigation lawsuit legal court settlement judge plaintiff verdict attorney arbitration dispute ruling appeal
        claim patent case property intellectual suit sue;
    patent intellectual infringement generic exclusivity property ruling court appeal licensing license royalty;
    drug medicine medication therapy therapeutic treatment clinical trial patient dose study phase endpoint fda
        pharmaceutical pharma compound biomarker efficacy oncology vaccine placebo indication receptor inhibitor
        prescription pivotal data readout enrollment enroll safety milestone filing develop development approval
        label cancer disease biotech biologic;
    hospital physician doctor patient surgery surgical surgeon procedure device medical healthcare clinician
        clinic care;
    insurance insurer premium underwriting policyholder reinsurance broker brokerage policy claim agency
        agencies agent storm hail catastrophe combined accident loss reserve event peril casualty liability
        property auto;
    weather storm hurricane hail flood wildfire drought rain snow winter cold warm temperature climate
        catastrophe disaster seasonal frost;
    oil crude drilling drill well rig barrel petroleum energy shale basin exploration hydrocarbon wellbore
        oilfield completion upstream downstream refining refinery refiner production acreage lateral producer
        crack;
    gas lng pipeline methane natural;
    fuel diesel gasoline jet petrol energy;
    power electricity electric utility grid megawatt solar wind renewable renewables turbine energy
        electrification generation generate clean module commission;
    material commodity commodities steel resin aluminum copper metal lumber input feedstock cotton raw paper
        pulp surcharge ingredient beef cattle pork egg corn wheat sugar cocoa coffee aluminium chemical price
        cost;
    freight shipping logistics logistic truck transportation trucking carrier rail railroad port shipment
        container distribution haulage lane route diesel intermodal carriage warehouse dispatch fleet tanker
        vessel;
    supplier supply sourcing procurement procure vendor shortage component bottleneck disruption chain expedite
        backlog source dual logistics scarcity scarce;
    inventory inventories stock destocking stockpile restocking overstock;
    capex capital expenditure spending construction investment infrastructure project budget plan phase build
        buildout pipeline maintenance deploy;
    cash liquidity cashflow;
    price prices pricing priced discount promotion promotional markdown surcharge competition competitive
        inflation increase discounting deflation rate deflationary affordability elasticity;
    inflation inflationary price cost costs expensive wage;
    promotion promotional advertising advertise marketing campaign media brand ad advertiser impression audience
        video budget display agency sponsor sponsorship;
    customer client consumer buyer user member shopper guest subscriber loyalty audience household;
    demand order backlog booking bid award contract pipeline;
    subscription subscriber recurring saas renewal churn retention member membership license seat perpetual
        annual model;
    software cloud platform saas application hosting datacenter server computing cybersecurity it license seat
        subscription technology digital migration tool code module cyber;
    semiconductor chip wafer foundry fab chipmaker memory silicon node electronics device utilization electronic;
    auto automotive vehicle car truck oem dealership dealer automaker;
    aircraft airline aviation airplane aerospace jet fleet airframe plane engine aftermarket spare pilot body
        defense shop airport;
    defense defence military army navy pentagon missile government;
    earnings eps profit income profitability;
    revenue sale sales topline turnover;
    margin profitability profit markup;
    expense cost costs overhead spending sga opex;
    efficiency productivity saving savings restructuring streamline streamlining lean reduction layoff
        rightsizing simplification automation headcount plant closure close severance footprint consolidation
        cut simplify simplified organization program waste scrap reorganization oven effective;
    plant facility factory factories manufacturing manufacture production assembly line capacity utilization
        closure footprint mill shift operation fab throughput;
    global international overseas foreign abroad export country countries worldwide emerging asia asian europe
        china latin africa currency region regional border;
    china chinese asia asian beijing shanghai province;
    europe european brexit uk germany france;
    america american domestic united states usa;
    wealth advisory advisor fund fee aum;
    guidance forecast estimate projection expect expected expects outlook target raise lower assume assumption
        model;
    leadership executive ceo cfo succession appoint appointment board director president organizational
        reorganization;
    research rd innovation innovative science laboratory develop development engineering prototype design;
    security cybersecurity breach hack fraud privacy cyber;
    emission carbon sustainability environmental climate recycling esg green decarbonization;
    crop grain farm farmer agriculture agricultural seed fertilizer harvest corn soybean planting cattle
        livestock herd rainfall acre;
    food beverage snack grocery groceries grocer meat dairy drink beef cattle egg meal grain corn packaged
        ingredient agricultural agriculture category flavor;
    wireless network broadband fiber spectrum telecom telecommunications tower cellular;
    game gaming casino slot;
    student enrollment tuition school education educational campus university;
    mine mining miner gold ore silver coal mineral;
    water wastewater irrigation sewer;
    construction infrastructure cement aggregate aggregates contractor concrete highway;
    pension retirement benefit actuarial;
    payment card transaction merchant processing checkout;
    share stake penetration competitor competitive competition rival incumbent tender entry local;
    pandemic covid coronavirus lockdown virus;
    outage disruption downtime shutdown interruption maintenance turnaround;
    robot automation automated automate conveyor robotics;
    ai artificial intelligence algorithm automation;
    warranty claim defect recall repair quality reliability;
    dose dosing safety efficacy tolerability adverse toxicity;
    election political politics president congress trump brexit geopolitical;
    bird flu disease outbreak epidemic illness;
    lead delay delayed late slip schedule timeline time timing postponed backlog;
    data analytics insight information dataset measurement;
    loyalty reward member membership program card;
    satellite launch orbit space rocket;
    film movie box theater cinema studio content streaming television show episode;
    sport athlete athletic fitness sporting olympic league team outdoor;
    vitamin supplement nutrition health wellness;
    consulting consultant outsourcing professional advisory staffing;
    chemical chemistry coating polymer specialty pigment adhesive;
    packaging can bottle carton container box corrugated;
    distribution distributor dealer channel wholesale wholesaler reseller partner;
    rental rent lease fleet equipment utilization;
    waste landfill recycling collection hauling disposal;
    machine machinery equipment tool industrial tractor engine;
    seasonality season holiday christmas summer winter easter;
    accounting gaap accrual standard recognition deferred restatement audit;
    refund return warranty restock;
    brand franchise trademark label image awareness;
    branch network location footprint office site;
    dividend distribution payout income;
    hedge hedging swap derivative futures collar;
    merchant payment card processing transaction fintech wallet;
    steel iron mill scrap metal alloy;
    forest timber wood lumber pulp paper tissue;
    medicare medicaid reimbursement payer payor insurer coverage plan enrollment
"""
CONCEPTS = tuple(map(_stems, _CONCEPTS.split(";")))
"""Groups of related words: a name may use one if the sentences use another."""

ACRONYMS = _words(
    """
    ai api apr arpu arr asp atm aum b2b b2c bps cagr capex ceo cfo coo cpi cre crm dc dcf doj dso dtc ebit ebitda
    ecb epa eps erp esg esop eu ev fcf fda fdic ferc ffo ftc fx gaap gdp gmv gpu h1 h2 hr iot ip ipo irs it jv kpi
    lifo lng loi ltv ma mro nasdaq ngl nii nim noi nol nyse oem opec opex pc pe pp ppe ppi q1 q2 q3 q4 qa qsr rd
    reit roa roe roi roic rpo saas sba sec sga sku smb sme ssl swap tam tv uk us usa usd va vat vc wacc yoy
    """
)
"""Financial abbreviations, which are not names."""

KNOWN_NAMES = _words(
    """
    africa african america american argentina asia asian australia australian austria bangladesh belgium brazil
    brazilian britain british california canada canadian chicago chile china chinese colombia colorado cuba czech
    denmark dubai egypt england europe european finland florida france french germany german greece hawaii houston
    hungary illinois india indian indonesia iran iraq ireland israel italy italian japan japanese kenya korea korean
    kuwait london louisiana malaysia mexico mexican michigan minnesota moscow netherlands nevada nigeria norway ohio
    oklahoma oregon pakistan paris pennsylvania peru philippines poland portugal qatar russia russian saudi shanghai
    singapore spain spanish sweden swiss switzerland taiwan tennessee texas thailand tokyo turkey ukraine utah
    venezuela vietnam virginia washington wisconsin york zealand adobe aetna airasia airbnb airbus alibaba alphabet
    amazon amd amgen aramco astrazeneca audi barclays bayer bmw boeing bombardier broadcom caterpillar chevron
    chrysler cisco citi citigroup coca comcast costco daimler dell delta deutsche disney dupont ebay embraer
    ericsson exxon exxonmobil facebook fedex ferrari fiat foxconn gazprom gilead goldman google halliburton heineken
    hitachi honda honeywell hsbc huawei hyundai ibm infosys intel jpmorgan kellogg kraft linkedin lockheed lukoil
    lufthansa mastercard mcdonald mcdonalds medtronic merck microsoft mitsubishi monsanto motorola nestle netflix
    nike nintendo nissan nokia novartis nvidia openai oracle panasonic paypal pepsi pepsico petrobras pfizer philips
    porsche qualcomm raytheon renault roche rolls ryanair samsung sanofi sap schlumberger shopify siemens sony
    spotify starbucks stripe tencent tesco tesla toshiba toyota twitter uber unilever verizon vodafone volkswagen
    volvo walgreens walmart walmart wells whatsapp xerox yahoo youtube zara bernanke bezos biden buffett clinton
    draghi gates musk obama powell putin trump yellen zuckerberg
    """
)
"""Places, companies and persons that language models mention most. A name may contain one only if the call does."""


def weight_of(one: str) -> float:
    """How specific a stem is: 1 for a specific one, less for a generic one, 0 for a vacuous one."""
    if one in VACUOUS:
        return 0.0
    if one in DIRECTIONS or one in BROAD:
        return 0.4
    return 1.0
