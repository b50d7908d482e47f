"""The sentences of the sample calls, by topic. They were written for ftm; nothing is quoted.

In a sentence, `[a|b]` is a choice, `{p}` a percentage, `{m}` an amount of money and `{c}` a count.
"""

TOPICS: dict[str, tuple[str, ...]] = {
    "Cloud software subscriptions": (
        "Subscription revenue from our cloud software grew {p}, and annual recurring revenue reached {m}.",
        "Net retention among cloud subscribers was {p}, as customers [added seats|bought further modules].",
        "We moved {c} customers from perpetual licenses to cloud subscriptions.",
        "Churn in the subscription base fell to {p}, the lowest since we launched the cloud platform.",
        "Deferred subscription revenue rose to {m}, since most customers now pay for their licenses annually.",
        "The software platform signed {c} new subscribers, [two thirds|half] of them on multi-year subscriptions.",
        "Cloud hosting costs per subscriber declined {p} after we renegotiated our hosting contract.",
        "Recurring revenue is now {p} of software revenue, against perpetual licenses two years ago.",
        "Our larger subscribers renewed their software licenses early and added cloud storage.",
        "Average revenue per subscriber on the platform increased {p} with the premium software tier.",
        "Migration of on-premise software customers to the cloud will be finished [this year|by next summer].",
        "Renewal rates for cloud subscriptions held at {p} across all software modules.",
    ),
    "Raw material costs": (
        "Raw material costs rose {p}, driven by [steel|resin|aluminum] and freight surcharges from suppliers.",
        "We passed on {p} of the raw material inflation through surcharges to our customers.",
        "Steel and resin prices added {m} to our material costs against last year.",
        "Suppliers announced further price increases for [copper|aluminum|resin], which our hedges cover in part.",
        "Commodity inflation took {p} off gross margin before surcharges caught up.",
        "We hold {c} weeks of steel inventory bought at lower commodity prices.",
        "Surcharges lag raw material inflation by about one season, so margin recovers later.",
        "Our purchasing team qualified {c} new suppliers to bring material costs down.",
        "Resin shortages forced us to buy material on the spot market at {p} above contract prices.",
        "Commodity hedges cover {p} of our copper and aluminum needs.",
        "Material inflation was {m} above plan, mainly steel and packaging resin.",
        "As commodity prices ease, suppliers have begun to lower their surcharges on aluminum.",
    ),
    "Clinical trial progress": (
        "The phase three trial enrolled {c} patients and met its primary endpoint.",
        "We filed the drug application with the regulator after the pivotal trial read out.",
        "Patients in the trial showed a {p} reduction in [symptoms|relapses] against placebo.",
        "The regulator granted priority review, with a decision on approval due [in autumn|early next year].",
        "Our phase two study of the oncology drug will dose its first patient soon.",
        "Safety in the trial was consistent with earlier studies, and {p} of patients stayed on the drug.",
        "Trial sites in {c} countries are open for enrollment of patients.",
        "The drug's second indication enters phase three once the regulator agrees to the endpoint.",
        "Clinical spending was {m}, mostly for the two pivotal trials.",
        "An independent safety board recommended that the trial proceed without change in dose.",
        "We presented the study's placebo-controlled data on patients at the oncology congress.",
        "If approval comes, the drug would reach patients within {c} weeks.",
    ),
    "Store traffic and comparable sales": (
        "Comparable store sales rose {p}, with traffic up and the average ticket flat.",
        "Store traffic softened in [malls|city centers] while shoppers spent more per basket.",
        "We opened {c} stores and closed {c}, and remodeled the flagship shop.",
        "Shoppers responded to the apparel assortment, and comparable sales of footwear grew {p}.",
        "Markdowns in apparel were {p} lower since store inventory was clean after the holidays.",
        "Loyalty members accounted for {p} of store sales and visit shops more often.",
        "Average basket size in stores increased {p} as shoppers bought [footwear|home goods] together with apparel.",
        "Remodeled stores outperform the other shops in comparable sales by {p}.",
        "Weather hurt traffic in our northern stores for {c} weekends.",
        "Merchandise margin improved as fewer shoppers waited for markdowns.",
        "Curbside pickup brought new shoppers into the stores and lifted the ticket.",
        "We plan {c} further store openings, most of them smaller shops outside malls.",
    ),
    "Loan growth and deposits": (
        "Average loans grew {p}, led by commercial lending and [mortgages|credit cards].",
        "Deposits increased to {m}, and noninterest-bearing deposits were {p} of the balance.",
        "Net interest margin widened as loans repriced faster than deposits.",
        "Charge-offs were {p} of average loans, and the allowance for credit losses is {m}.",
        "Mortgage originations slowed while borrowers waited for lower rates.",
        "Commercial borrowers drew {p} of their credit lines.",
        "Deposit costs rose as depositors moved balances into certificates.",
        "Our loan officers see competition for commercial lending from private credit.",
        "Nonperforming loans fell to {m}, and the allowance covers them twice over.",
        "We expect net interest income to follow loan growth and deposit pricing.",
        "Consumer credit is normalizing, with card delinquencies at {p} of balances.",
        "The branch network gathered {m} of new deposits from small-business borrowers.",
    ),
    "Drilling and oil production": (
        "Oil production averaged {c} thousand barrels a day, above the top of our guidance.",
        "We run {c} rigs in the basin and completed {c} wells.",
        "Drilling costs per well fell {p} as laterals got longer and crews faster.",
        "Natural gas production was curtailed while pipeline maintenance limited takeaway.",
        "Our wells in the shale basin paid back in {c} months at current oil prices.",
        "Lease operating expense per barrel declined {p} after we electrified the rigs.",
        "The drilling inventory holds more than {c} locations that earn their cost at low oil prices.",
        "Completion crews fractured {p} more stages a day than last year.",
        "Proved reserves of oil and natural gas grew {p} through drilling.",
        "We added acreage next to our basin position for {m}, with {c} drilling locations.",
        "Pipeline capacity for our barrels is contracted, so that price differentials stay small.",
        "Production from the offshore well starts once the platform's pipeline is laid.",
    ),
    "Semiconductor demand": (
        "Chip demand from data centers grew {p}, while handset chips stayed weak.",
        "Wafer starts at our foundry partner were cut by {p} to work down chip inventory.",
        "Distributors hold {c} weeks of semiconductor inventory, close to what we call normal.",
        "Automotive semiconductor content per vehicle rose, and design wins reached {m}.",
        "Lead times for chips shortened to {c} weeks as foundry capacity opened.",
        "Utilization of our wafer fab was {p}, which weighed on gross margin.",
        "The next node of our processor taped out and sampling to data centers began.",
        "Design wins in [industrial|automotive] semiconductors will ramp with new wafer capacity.",
        "Memory prices recovered {p}, and bit shipments followed.",
        "Handset makers placed chip orders again after {c} months of inventory correction.",
        "We prepaid {m} to the foundry to secure advanced wafer capacity.",
        "Analog chips for [factories|chargers] saw fewer cancellations of orders.",
    ),
    "Share repurchases and dividends": (
        "We repurchased {c} thousand shares for {m} and raised the dividend by {p}.",
        "The board authorized a new share repurchase program of {m}.",
        "Dividends and buybacks returned {p} of free cash flow to shareholders.",
        "Since the buyback began, the share count has fallen {p}.",
        "We intend to repurchase shares at a steady pace, whatever the stock price.",
        "The board declared a special dividend after the sale, payable to shareholders [in spring|in autumn].",
        "Our payout ratio of dividends to earnings stays near {p}.",
        "An accelerated repurchase of {m} retired shares earlier than planned.",
        "Shareholders received {m} in dividends, which have risen for {c} years in a row.",
        "Leverage allows us to fund the dividend and to repurchase shares together.",
        "What remains of the repurchase authorization is {m}.",
        "Free cash flow after the dividend funds buybacks without new debt.",
    ),
    "Foreign exchange headwinds": (
        "Foreign exchange took {p} off revenue, since the dollar strengthened against the [euro|yen|pound].",
        "In constant currency, sales grew {p}.",
        "Currency translation cost us {m} of operating profit.",
        "We hedge the euro and the yen {c} months ahead, which smooths exchange effects.",
        "At current exchange rates, currency remains a headwind of {p} to earnings.",
        "The stronger dollar made our exports dearer in [Brazil|Japan|Turkey].",
        "Currency headwinds were mostly translation, with little effect on transaction margins.",
        "Had exchange rates stayed where they were, profit would be {m} higher.",
        "Hedging gains on the yen offset part of the foreign exchange loss.",
        "Our constant currency outlook is unchanged, while the dollar lowers reported sales.",
        "We raised prices abroad where the local currency weakened against the dollar.",
        "Every cent that the euro moves changes translated revenue by {m}.",
    ),
    "Hiring and wages": (
        "Headcount grew {p}, with most hiring in [engineering|sales|nursing].",
        "Wage inflation ran at {p}, and we raised starting pay for hourly employees.",
        "Employee turnover fell to {p}, the lowest since we changed the pay plan.",
        "Labor remains tight, and open positions take {c} days to fill.",
        "We trained {c} new employees and need less overtime.",
        "Temporary labor cost {m} more while we were recruiting.",
        "Recruiting improved after we offered hourly employees flexible shifts.",
        "The union contract brings wage increases of {p} over its term.",
        "Overtime declined {p} as staffing reached its target.",
        "Salaried headcount will stay flat, and hiring will go to customer service staffing.",
        "Benefits and wages per employee increased {p}, less than labor productivity.",
        "Retention bonuses ended, since turnover among skilled employees is back to normal.",
    ),
    "Acquisition integration": (
        "We closed the acquisition for {m} and began the integration of the two sales forces.",
        "Cost synergies from the merger reached {m}, ahead of the integration plan.",
        "The acquired business added {p} to revenue and is accretive to earnings.",
        "Integration costs were {m}, and the larger part of them is behind us.",
        "We merged {c} plants of the acquired company into our own network.",
        "Cross-selling synergies start once the acquired product lines are in one catalog.",
        "The deal pipeline is full, and we look for further bolt-on acquisitions.",
        "We sold a business that came with the merger for {m}.",
        "Goodwill from the acquisition is {m}, and the purchase accounting is final.",
        "Both companies now run on one ledger, which completes the systems integration.",
        "We raised the synergy target of the merger to {m}.",
        "Antitrust clearance for the acquisition came {c} weeks sooner than assumed.",
    ),
    "Supply chain and shipping": (
        "Ocean freight rates fell {p}, and container transit times are back to {c} days.",
        "Port congestion delayed {c} shipments until after the quarter's end.",
        "We moved production closer to our warehouses to shorten the supply chain.",
        "Logistics costs were {p} of sales as truckload rates declined.",
        "On-time delivery from our distribution center improved to {p}.",
        "Air freight, which we needed for late components, cost {m}.",
        "A second warehouse on the [east|west] coast cut delivery by {c} days.",
        "Carriers returned to the canal route, and container rates normalized.",
        "Component shortages in the supply chain eased, and the order backlog shipped.",
        "We renegotiated trucking contracts, and truckload costs follow spot rates down.",
        "Warehouse automation lifted the distribution center's throughput by {p}.",
        "Customs checks held {c} containers at the port for weeks.",
    ),
    "Passenger demand and capacity": (
        "Passenger revenue per seat mile rose {p} on {p} more capacity.",
        "Load factor reached {p}, with business travel on [domestic|transatlantic] routes back.",
        "We took delivery of {c} aircraft and retired the oldest in the fleet.",
        "Jet fuel cost {m} more, which higher fares recovered in part.",
        "Bookings for the summer are {p} ahead, and premium cabins fill first.",
        "Unit cost excluding fuel fell {p} as the fleet flew longer routes.",
        "Pilot training limited capacity, so that we parked {c} regional aircraft.",
        "Loyalty revenue from the airline's card grew {p} as travelers flew more.",
        "We added {c} international routes and cut domestic seats on weekdays.",
        "Completion of flights was {p} in spite of storms at our hub airport.",
        "Corporate travelers book closer to the flight and pay higher fares.",
        "Aircraft deliveries slip by {c} months, which keeps seats scarce and fares firm.",
    ),
    "Renewable power projects": (
        "We brought {c} megawatts of solar and wind capacity into operation.",
        "The backlog of renewable projects stands at {c} megawatts with signed power contracts.",
        "Battery storage is now part of {p} of our solar projects.",
        "Interconnection to the grid delays wind projects by {c} months.",
        "Utilities signed power purchase agreements at prices {p} above last year's.",
        "Tax credits for solar panels made locally are worth {m} to our projects.",
        "The rate case allows a return on grid investment of {p}.",
        "Turbine deliveries for the offshore wind farm begin [in spring|next summer].",
        "Electricity demand of data centers lifts the load growth of our utility to {p}.",
        "Panel prices fell, and we lowered the cost of the solar pipeline by {m}.",
        "We financed {c} megawatts of storage with green bonds.",
        "Wind speeds were below average, and generation was {p} under plan.",
    ),
}

QUESTIONS = (
    "Could you talk about {topic} and what you assume for the rest of the year?",
    "Can you give us some color on {topic}?",
    "I wanted to ask about {topic}, and how we should model it.",
)

OPENING = (
    ("Operator", "Good day, and welcome to the {firm} earnings conference call. Today's call is being recorded."),
    ("Executive", "Thank you, and good morning, everyone."),
    ("Executive", "Before we begin, let me remind you that today's remarks contain forward-looking statements."),
    ("Executive", "Actual results may differ materially, and we undertake no obligation to update these statements."),
    ("Executive", "A reconciliation of non-GAAP measures to GAAP is in the press release on our website."),
)

HAND_OVER = ("Executive", "With that, let me turn the call over to our chief financial officer.")

NEXT_QUESTION = ("Operator", "Our next question comes from the line of a covering analyst. Your line is open.")

THANKS = ("Executive", "Sure, thanks for the question.")

CLOSING = (
    ("Operator", "There are no further questions at this time."),
    ("Executive", "Thank you all for joining us today."),
    ("Operator", "This concludes today's conference call. You may now disconnect."),
)

FIRST_NAMES = """
    Alder Birch Cedar Dover Elgin Fenwick Garnet Harrow Ivory Juniper Kestrel Larch Marlow Nimbus Orchard Pelham
    Quarry Rowan Sable Tamarack Umber Verity Willow Yarrow Zephyr
""".split()  # noqa: SIM905

SECOND_NAMES = """
    Holdings Industries Group Partners Systems Works Labs Brands Resources Networks Dynamics Materials Logistics
    Ventures Technologies International
""".split()  # noqa: SIM905

STOP_WORDS = frozenset(
    """
    a about above after again against all also an and any are as at back be because been before began begin between both
    by can could did do does during each every few first for from further get give go good got had has have how i if in
    into is it its just last let like make many may me more most much my need next no nor not now of off on once one
    only or other our out over own part per same she should since so some such than that the their them then there these
    they this those through to today too two under until up us very was we were what when where which while who will
    with would year years you your
    """.split()  # noqa: SIM905
)
