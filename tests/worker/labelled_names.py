"""Made-up topics of many sectors, with names that a good model would give them and names that are worthless.

The sentences imitate earnings calls and are written for this test; no company said them. Each topic's good names go
from literal to abstract. Its bad names are vacuous, belong to another subject, or name somebody from elsewhere.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Labelled:
    subject: str
    """Topics of one subject may share a name; a good name of another subject is a bad one here."""
    keywords: list[str]
    sentences: list[str]
    summary: str
    good: list[str]
    bad: list[str]


def _topic(subject: str, keywords: str, sentences: str, summary: str, good: str, bad: str) -> Labelled:
    def lines(text: str) -> list[str]:
        return [line.strip() for line in text.strip().splitlines()]

    return Labelled(subject, keywords.split(", "), lines(sentences), summary, lines(good), lines(bad))


TOPICS = [
    _topic(
        "labor",
        "wage, hourly, overtime, nurses, agency, retention",
        """
        Hourly wages went up about 6% in our distribution centers since the spring.
        We are still paying more overtime than we would like, because open positions take ten weeks to fill.
        Agency nurses cost us twice what our own nurses do, and we used fewer of them in the quarter.
        Retention bonuses of $4 million are in the number.
        How much of the wage increase do you expect to recover next year?
        The union contract adds another 3% in January.
        """,
        "Wages and overtime rose as open positions took longer to fill, while the use of agency nurses declined.",
        """
        Labor cost inflation
        Wage increases and overtime
        Staffing shortages and pay
        Rising employee compensation
        """,
        """
        Foreign exchange headwinds
        Crude oil price decline
        Business update
        Bank of America staffing
        """,
    ),
    _topic(
        "currency",
        "euro, dollar, currency, constant, translation, hedges",
        """
        The stronger dollar took 3 points off reported growth.
        In constant currency sales grew 5%, with the euro and the yen both weaker.
        Translation reduced operating income by $11 million.
        Our hedges roll off in the third quarter, so you will see more of the spot rate.
        We do not hedge the Brazilian real.
        """,
        "A stronger dollar reduced reported growth and income, and hedges that soften the effect will expire.",
        """
        Foreign exchange headwinds
        Currency translation impact
        Strong dollar effects on results
        Exchange rate exposure and hedging
        """,
        """
        Clinical trial enrollment
        Financial results
        The company
        Restaurant menu pricing
        """,
    ),
    _topic(
        "buyback",
        "repurchase, shares, dividend, authorization, return, board",
        """
        We bought back 2 million shares for $90 million at an average price of $45.
        The board raised the quarterly dividend by 10%.
        About $300 million remains under the authorization.
        Our aim is to hand back half of free cash flow over the cycle.
        Is there a point at which you would favor the dividend over repurchases?
        """,
        "The company repurchased shares, raised its dividend and aims to return half of its free cash flow.",
        """
        Share repurchase program
        Capital returns to shareholders
        Dividend increase and buybacks
        Stock buyback execution
        """,
        """
        Gross margin expansion
        Shareholder update
        Company performance
        Airbus delivery schedule
        """,
    ),
    _topic(
        "debt",
        "notes, revolver, leverage, maturity, covenant, refinanced",
        """
        We refinanced the revolver and pushed the maturity out to five years.
        Net leverage came down to 2.8 times from 3.4 times.
        We have no notes coming due until the end of the decade.
        The covenant was reset and gives us ample room.
        Interest expense will fall by $6 million a year after the exchange.
        """,
        "The revolver was refinanced, leverage declined and no notes mature in the near term.",
        """
        Debt refinancing and deleveraging
        Balance sheet leverage reduction
        Longer debt maturities
        Borrowing costs and covenants
        """,
        """
        Store remodel program
        Finance
        Key highlights
        Semiconductor demand recovery
        """,
    ),
    _topic(
        "margin",
        "margin, gross, basis, mix, scrap, points",
        """
        Gross margin expanded 140 basis points to 38.2%.
        About half of that came from mix and the rest from lower scrap in the plants.
        Price was neutral to margin in the quarter.
        We think there are another 100 basis points to go over two years.
        Freight was a small offset of 20 basis points.
        """,
        "Gross margin expanded thanks to a better mix and less scrap in the plants, with more improvement expected.",
        """
        Gross margin expansion
        Margin gains from mix and scrap
        Improved product profitability
        Gross profit drivers
        """,
        """
        Hotel occupancy trends
        Business and finance
        Performance overview
        Patent litigation settlement
        """,
    ),
    _topic(
        "oil",
        "wells, rigs, basin, barrels, completion, acreage",
        """
        We ran four rigs in the basin and completed 22 wells.
        Production averaged 48,000 barrels a day, ahead of the plan.
        Well costs are down to $5.6 million with longer laterals.
        At $45 crude the core acreage earns a 30% return.
        We will add a fifth rig only if prices hold.
        """,
        "Four rigs completed wells ahead of plan at lower well costs, and another rig depends on crude prices.",
        """
        Shale drilling activity
        Well completion efficiency
        Upstream oil production growth
        Rig count and drilling returns
        """,
        """
        Subscription renewal rates
        Operations update
        General overview
        Gazprom supply contract
        """,
    ),
    _topic(
        "clinical",
        "patients, phase, endpoint, trial, dose, enrollment",
        """
        The phase 3 trial has enrolled 640 of 800 patients.
        We expect the primary endpoint to read out in the first half.
        At the higher dose we saw a cleaner safety profile.
        The agency agreed with our statistical plan.
        Should the data be positive, we would file before year end.
        """,
        "Enrollment of the phase 3 trial is advancing, with data on the primary endpoint due in the first half.",
        """
        Late-stage clinical trial progress
        Drug trial enrollment and readout
        Phase 3 study milestones
        Pivotal therapy development timeline
        """,
        """
        Share repurchase program
        Recent developments
        Company news
        Loan portfolio growth
        """,
    ),
    _topic(
        "retail",
        "comparable, traffic, ticket, stores, apparel, markdowns",
        """
        Comparable sales rose 2.4%, with ticket up and traffic slightly down.
        Apparel was soft until the weather turned in September.
        We took fewer markdowns, since inventory was clean.
        Mall stores lagged the off-mall ones by 300 basis points.
        The new fitting rooms are in 80 stores.
        """,
        "Comparable sales grew on a higher ticket while traffic dipped, and cleaner inventory meant fewer markdowns.",
        """
        Comparable store sales growth
        Store traffic and ticket trends
        Brick-and-mortar retail performance
        Same-store sales momentum
        """,
        """
        Natural gas storage
        Sales update
        Market overview
        Walmart partnership
        """,
    ),
    _topic(
        "subscription",
        "subscription, renewal, recurring, churn, seats, license",
        """
        Annual recurring revenue passed $500 million.
        The renewal rate was 96%, and churn among small customers improved.
        More than half of new seats are on the subscription plan.
        The move away from perpetual license reduces revenue at first.
        Net retention stood at 112%.
        """,
        "Recurring revenue grew with high renewal rates as customers move from perpetual licenses to subscriptions.",
        """
        Subscription model transition
        Recurring software revenue growth
        Customer retention and renewals
        Shift from perpetual licenses
        """,
        """
        Crop protection demand
        Strategic priorities
        Revenue
        Weather effects on harvest
        """,
    ),
    _topic(
        "bank margin",
        "nim, deposits, yields, basis, funding, net",
        """
        NIM was down 4 basis points as asset yields reset lower.
        Deposit costs rose for the first time in two years.
        We expect net interest income to be flat with a 25 basis point hike.
        Premium amortization cost us another 2 basis points.
        Wholesale funding is less than 8% of liabilities.
        """,
        "The net interest margin fell with lower asset yields and rising deposit costs, and income should be flat.",
        """
        Net interest margin compression
        Rising deposit costs
        Interest rate sensitivity of lending income
        Funding cost pressure
        """,
        """
        Aircraft delivery delays
        Quarterly results
        Financial performance overview
        Vitamin manufacturing capacity
        """,
    ),
    _topic(
        "credit",
        "charge-offs, nonperforming, provision, allowance, loans, delinquency",
        """
        Net charge-offs were 18 basis points, and the provision was $7 million.
        Nonperforming loans declined for the sixth quarter in a row.
        We built the allowance for the energy book.
        Early-stage delinquency in auto ticked up a little.
        Two credits moved to nonaccrual, both of them in shipping.
        """,
        "Charge-offs and nonperforming loans stayed low, though the allowance grew for the energy book.",
        """
        Loan credit quality
        Declining problem assets
        Loan loss provisioning
        Asset quality and delinquencies
        """,
        """
        Solar project pipeline
        Company strategy
        Important topics
        Loyalty app downloads
        """,
    ),
    _topic(
        "insurance",
        "combined ratio, premiums, hail, catastrophe, losses, reserve",
        """
        The combined ratio was 94, including 6 points from hail in Texas and Oklahoma.
        Written premiums rose 5% with rate increases in commercial auto.
        Catastrophe losses came to $58 million.
        We released $12 million of reserve from prior accident years.
        Reinsurance attaches at $75 million per event.
        """,
        "Hail losses weighed on the combined ratio, while premiums rose with rates and reserves were released.",
        """
        Catastrophe losses and underwriting results
        Property insurance storm claims
        Commercial premium rate increases
        Combined ratio and reserve releases
        """,
        """
        Cloud migration costs
        Management commentary
        Strong momentum
        Gym membership growth
        """,
    ),
    _topic(
        "freight",
        "freight, carriers, trucking, diesel, rates, lanes",
        """
        Freight rates climbed 9% as carriers left the market.
        Diesel was a headwind of $2 million.
        We moved some lanes to intermodal to save money.
        Detention at the ports has eased since summer.
        Trucking capacity stays tight in the southeast.
        """,
        "Freight rates and diesel costs rose with tight trucking capacity, and some lanes moved to intermodal.",
        """
        Freight cost increases
        Tight trucking capacity
        Transportation and logistics expenses
        Shipping rate pressure
        """,
        """
        Drug pricing reform
        Cost update
        Various topics
        Student enrollment decline
        """,
    ),
    _topic(
        "commodity",
        "steel, resin, surcharge, copper, material, prices",
        """
        Steel was up 15% and resin 8% from the prior quarter.
        We put through a surcharge on April 1 that covers two thirds.
        Copper is hedged until the autumn.
        There is a lag of about 90 days before material prices pass through.
        Suppliers of castings want increases as well.
        """,
        "Steel and resin became more expensive, and a surcharge passes on part of the material prices with a lag.",
        """
        Raw material cost inflation
        Steel and resin prices
        Commodity input surcharges
        Passing through higher material costs
        """,
        """
        Mortgage refinancing volume
        Market conditions
        Overall picture
        Vaccine trial results
        """,
    ),
    _topic(
        "ecommerce",
        "online, digital, mobile, app, fulfillment, site",
        """
        Online sales grew 28% and are now 17% of the total.
        Half of digital orders come from the mobile app.
        We ship 40% of those orders out of stores.
        Conversion on the new site is up.
        Free returns cost more than we had modeled.
        """,
        "Online sales grew quickly, mostly through the mobile app, with many orders shipped from stores.",
        """
        E-commerce sales growth
        Digital channel expansion
        Omnichannel order fulfillment
        Mobile shopping adoption
        """,
        """
        Nuclear plant outage
        Growth strategy
        Customers
        Alibaba joint venture
        """,
    ),
    _topic(
        "acquisition",
        "acquisition, synergies, integration, close, deal, combined",
        """
        We closed the acquisition of the coatings business on May 2.
        Integration is ahead of plan, and synergies will reach $25 million.
        The deal adds 20 cents in its first full year.
        Combined, we serve 9,000 customers.
        One-time charges of $14 million are excluded.
        """,
        "The coatings business was acquired, its integration is ahead of plan and synergies will add to earnings.",
        """
        Acquisition integration and synergies
        Coatings business purchase
        Merger cost savings
        Accretive deal closing
        """,
        """
        Rainfall and hydro generation
        Business integration of Siemens
        Corporate news
        Teacher training programs
        """,
    ),
    _topic(
        "restructuring",
        "restructuring, headcount, savings, plants, severance, footprint",
        """
        We will close two plants and cut headcount by 400.
        Savings are $30 million a year from next spring.
        Severance of $11 million was booked in the quarter.
        The smaller footprint lets us load the remaining plants better.
        Cash costs are spread over 18 months.
        """,
        "Two plants close and headcount falls, which costs severance now and saves money from next year.",
        """
        Restructuring and plant closures
        Workforce reduction savings
        Manufacturing footprint consolidation
        Cost savings program
        """,
        """
        Satellite launch schedule
        Operational excellence
        Future plans
        Hotel group bookings
        """,
    ),
    _topic(
        "tax",
        "tax, rate, jurisdictions, deferred, benefit, credits",
        """
        The effective tax rate was 24%, helped by a discrete benefit.
        For the year we model 27%.
        Most of the change comes from the mix of jurisdictions.
        R&D credits were extended for good.
        Deferred tax assets of $40 million remain reserved.
        """,
        "A discrete benefit lowered the tax rate, which depends on the mix of jurisdictions for the rest of the year.",
        """
        Effective tax rate
        Income tax benefits
        Tax mix across jurisdictions
        R&D tax credits
        """,
        """
        Ride-hailing competition
        Rate
        Summary of results
        Organic milk supply
        """,
    ),
    _topic(
        "regulation",
        "commission, rate case, filing, order, utility, allowed",
        """
        We filed a rate case with the commission in March.
        The staff recommends an allowed return of 9.6%.
        A final order is due before winter.
        The rider recovers the cost of poles and wires without a new filing.
        Interveners have until June to testify.
        """,
        "A rate case is before the commission, with a final order due before winter and riders recovering grid costs.",
        """
        Utility rate case proceedings
        Regulatory approval of returns
        Rate filing with the state commission
        Grid cost recovery mechanisms
        """,
        """
        Smartphone camera modules
        Strategic update
        Things to watch
        Loyalty points liability
        """,
    ),
    _topic(
        "hotel",
        "revpar, occupancy, group, rooms, supply, leisure",
        """
        RevPAR grew 2.1%, all of it rate.
        Group bookings for next year are pacing up 4%.
        New rooms in Manhattan keep a lid on pricing.
        Leisure was strong over the holiday weekends.
        Occupancy is at a record in our top ten markets.
        """,
        "RevPAR grew through rates with record occupancy, while new rooms limit pricing and group bookings pace ahead.",
        """
        Hotel room revenue trends
        Lodging occupancy and supply
        Group and leisure travel demand
        Room rate growth
        """,
        """
        Catalyst for refining margins
        Performance summary
        Positive momentum
        Vladimir Putin sanctions
        """,
    ),
    _topic(
        "china",
        "china, chinese, beijing, distributors, province, local",
        """
        China grew 11%, with local brands taking part of the entry tier.
        Distributors in the inland provinces carry about six weeks.
        The Beijing plant starts up in the fall.
        Chinese customers ask for shorter lead times.
        We saw the tender price fall 5% in the big cities.
        """,
        "Sales in China grew despite local competition and lower tender prices, and a plant in Beijing starts up.",
        """
        Chinese market expansion
        Growth and competition in China
        Asia distribution and local rivals
        China sales momentum
        """,
        """
        Dairy herd expansion
        International update
        Opportunities and challenges
        Pension plan funding
        """,
    ),
    _topic(
        "semiconductor",
        "wafer, fab, nodes, chip, memory, utilization",
        """
        Fab utilization rose to 88%.
        Memory customers resumed orders for wafer starts.
        At the leading nodes we have four design wins.
        Chip inventories in the channel are back to normal.
        Depreciation steps up when the new clean room opens.
        """,
        "Fab utilization rose as memory customers resumed orders and chip inventories in the channel normalized.",
        """
        Semiconductor demand recovery
        Fab utilization improvement
        Memory wafer orders
        Chip channel inventory correction
        """,
        """
        Cruise ship bookings
        Industry trends
        Product
        Burger franchise openings
        """,
    ),
    _topic(
        "capex",
        "capital, spending, project, budget, construction, pipeline",
        """
        Capital spending will be $420 million, down from $500 million.
        The pipeline project is 60% complete and on budget.
        We deferred the second phase of construction.
        Maintenance capital runs at about $90 million.
        Permits for the northern segment came in August.
        """,
        "Capital spending was cut by deferring construction while the pipeline project stays on budget.",
        """
        Capital expenditure reduction
        Pipeline construction progress
        Deferred project spending
        Utility capital investment plan
        """,
        """
        Streaming subscriber losses
        Plan
        Status report
        Cosmetics brand ambassadors
        """,
    ),
    _topic(
        "litigation",
        "settlement, court, patent, plaintiffs, ruling, appeal",
        """
        The court of appeals heard our case in May.
        We reached a settlement with most of the plaintiffs for $35 million.
        The ruling on the second patent was in our favor.
        We accrued what we can estimate.
        A generic entrant cannot launch before the appeal is decided.
        """,
        "Most plaintiffs settled, one patent ruling was favorable and an appeal is pending.",
        """
        Patent litigation outcomes
        Legal settlement costs
        Court rulings and appeals
        Intellectual property lawsuits
        """,
        """
        Grain export volumes
        Issues and updates
        Current matters
        Toll road traffic
        """,
    ),
    _topic(
        "homebuilding",
        "homes, lots, communities, buyers, backlog, closings",
        """
        Orders for new homes were up 12%, and we opened nine communities.
        First-time buyers made up 40% of closings.
        Lots under control number 21,000.
        Framing crews are hard to find, so the cycle is two weeks longer.
        The backlog has a value of $1.1 billion.
        """,
        "New home orders rose with more communities and first-time buyers, while scarce crews lengthen construction.",
        """
        New home orders and backlog
        Residential community openings
        Housing demand from first-time buyers
        Homebuilding construction delays
        """,
        """
        Antibody licensing royalties
        Orders
        Market performance
        Diesel engine emissions
        """,
    ),
    _topic(
        "restaurant",
        "menu, franchisees, restaurants, guests, delivery, kitchen",
        """
        Our franchisees opened 31 restaurants.
        Menu prices are 2% higher than last year.
        Guests respond to the smaller portions at lunch.
        Delivery is now 6% of checks in the big cities.
        Kitchen labor hours fell with the new ovens.
        """,
        "Franchisees opened restaurants, menu prices rose, and delivery grew while kitchens needed fewer hours.",
        """
        Restaurant unit expansion
        Menu pricing and guest response
        Franchise openings and delivery
        Dining traffic and kitchen efficiency
        """,
        """
        Copper mine ramp-up
        The business update
        New initiatives
        McDonald's menu strategy
        """,
    ),
    _topic(
        "aerospace",
        "aircraft, engines, deliveries, aftermarket, airlines, spares",
        """
        Aircraft deliveries were 3% higher, and wide-body rates come down next year.
        Aftermarket revenue rose as airlines fly older planes longer.
        Spares for engines grew at a double-digit pace.
        Provisioning for the new narrow-body is behind us.
        Shop visits will peak in two years.
        """,
        "Aircraft deliveries and aftermarket revenue rose because airlines fly older planes and need engine spares.",
        """
        Aviation aftermarket growth
        Aircraft production rates
        Engine spares demand
        Airline maintenance and shop visits
        """,
        """
        Pet food innovation
        Services
        Key takeaways
        Boeing 737 grounding
        """,
    ),
    _topic(
        "solar",
        "solar, megawatts, wind, projects, turbine, grid",
        """
        We commissioned 120 megawatts of solar in the desert.
        Two wind projects slip because turbine deliveries are late.
        The grid operator limits how much we can feed in at noon.
        Power purchase agreements cover 85% of output.
        Module prices fell by a third.
        """,
        "Solar projects were commissioned while late turbines delay wind projects and the grid limits output.",
        """
        Renewable energy project pipeline
        Solar and wind capacity additions
        Clean power generation growth
        Turbine delays and grid limits
        """,
        """
        Business update
        Floating fares
        Wealth management fees
        Company performance
        """,
    ),
    _topic(
        "advertising",
        "advertisers, impressions, audience, campaigns, video, brand",
        """
        Advertisers moved budgets from display to video.
        Impressions grew 20% and the price per impression slipped.
        Brand campaigns for the holidays are booked early.
        Our audience skews younger since the redesign.
        Political money was less than in the last cycle.
        """,
        "Advertisers shifted budgets to video, with more impressions at lower prices and a younger audience.",
        """
        Video advertising growth
        Advertiser budget shifts
        Digital media audience trends
        Brand campaign spending
        """,
        """
        Loan loss reserves
        Company
        Overview of activities
        Nursing home occupancy
        """,
    ),
    _topic(
        "food",
        "beef, cattle, eggs, corn, grocery, packaged",
        """
        Beef costs fell with larger cattle supplies.
        Egg prices are a third of what they were during the bird flu.
        Deflation in grocery hurts our top line but not volume.
        Corn and soybean meal are locked in through March.
        Packaged meals lost some shelf space.
        """,
        "Cheaper beef, eggs and feed brought deflation to grocery, which lowers sales but not volumes.",
        """
        Food price deflation
        Agricultural ingredient costs
        Meat and egg supply
        Grocery category softness
        """,
        """
        Broadband subscriber additions
        Trends
        Information and details
        Orthopedic implant launches
        """,
    ),
    _topic(
        "supply chain",
        "shortages, components, suppliers, lead times, expedite, backlog",
        """
        Shortages of components held back shipments of $20 million.
        Lead times for controllers are 40 weeks.
        We dual-source the castings from two suppliers now.
        Expedite fees were $3 million.
        The past-due backlog should clear by summer.
        """,
        "Component shortages and lead times held back shipments, so the company adds suppliers and pays to expedite.",
        """
        Supply chain disruptions
        Component shortages and lead times
        Supplier diversification
        Procurement bottlenecks
        """,
        """
        Casino table revenue
        Company overview
        Main points
        Foxconn factory expansion
        """,
    ),
]
